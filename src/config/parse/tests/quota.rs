use super::*;
use crate::core::quota::{Amount, Day, Quota};

#[test]
fn a_quota_is_configured() {
    let quota = |lines: &str| {
        let config = read(&format!("[[uplink]]\nmatch.interface = \"wwan0\"\n{lines}\n"));
        config.uplinks[0].settings.quota()
    };
    let day = |n| Day::new(n).unwrap();
    let monthly = Quota { limit: Amount(50_000_000_000), day: day(15), soft: 80 };
    assert_eq!(quota("quota = \"50 GB\"\nquota-day = 15"), Some(monthly));
    let other = Quota { limit: Amount(1_610_612_736), day: day(31), soft: 95 };
    assert_eq!(quota("quota = \"1.5GiB\"\nquota-day = 31\nquota-soft = 95"), Some(other));
    // What overlays another section need not say all of it again.
    assert_eq!(quota("quota-day = 1"), None);
}

#[test]
fn a_quota_that_cannot_be_meant_is_refused() {
    let amount = "an amount from 1 MB to 1000 TB, like 500 MB, 50 GB or 1.5 TiB";
    for value in ["0", "0 GB", "999kB", "1001 TB", "-1 GB", "50", "50 gb", "fifty GB", "50 Gbit"] {
        let told = format!("3:9: quota: \"{value}\" is not allowed; {amount}");
        assert_eq!(setting(&format!("quota = \"{value}\"\nquota-day = 1")), [told]);
    }
    let told = format!("3:9: quota: 50 is not allowed; {amount} (in quotes)");
    assert_eq!(setting("quota = 50\nquota-day = 1"), [told]);
    assert_eq!(
        problems("[[uplink]]\nmatch.interface = \"wwan0\"\nquota = \"50 GB\""),
        "x.toml:3:9: quota: without quota-day beside it nobody knows when it is renewed; a day of the month from 1 to 31\n\
         \x20   3 | quota = \"50 GB\"\n\
         \x20     |         ^^^^^^^"
    );
    for day in ["0", "32", "-1", "1.5"] {
        let told = format!("4:13: quota-day: {day} is not allowed; a whole number from 1 to 31");
        assert_eq!(setting(&format!("quota = \"1GB\"\nquota-day = {day}")), [told]);
    }
    for soft in ["0", "101"] {
        let told = format!("3:14: quota-soft: {soft} is not allowed; percent from 1 to 100");
        assert_eq!(setting(&format!("quota-soft = {soft}")), [told]);
    }
}
