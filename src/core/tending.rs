//! What systemd-networkd does to routes and rules that are not its own.
//!
//! By default it deletes them, whoever made them and in whatever table, when it starts and when it configures a link.
//! Two settings of networkd.conf(5) keep it from that. The bus does not tell what it goes by, so its files are read as
//! it reads them (systemd.syntax(7)); it does so when it is started and never again: a reload leaves networkd.conf
//! alone (seen with systemd 257).

use super::systemd::{Setting, boolean, settings};

/// Where the settings stand.
const SECTION: &str = "Network";
/// Those that matter, which must be `no`.
const SETTINGS: [&str; 2] = ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"];

/// What a running systemd-networkd does with what is not its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tending {
    /// It leaves it alone.
    Spares,
    /// It deletes it: these settings do not say no.
    Deletes(Vec<&'static str>),
    /// Its files tell it to leave it alone, but it was started before they did.
    Unread,
}

impl Tending {
    /// What its files lead to, given in the order in which they count. `read` tells whether it was started since.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a str>, read: bool) -> Self {
        let mut manages = [true; 2];
        for Setting { key, value, .. } in
            files.into_iter().flat_map(settings).filter(|s| s.section == SECTION)
        {
            let known = SETTINGS.iter().zip(&mut manages).find(|(name, _)| **name == key);
            // What is no word for either counts for nothing.
            if let (Some((_, manages)), Some(value)) = (known, boolean(&value)) {
                *manages = value;
            }
        }
        let missing: Vec<_> =
            SETTINGS.into_iter().zip(manages).filter(|(_, manages)| *manages).map(|(key, _)| key).collect();
        match (missing.is_empty(), read) {
            (true, true) => Tending::Spares,
            (true, false) => Tending::Unread,
            (false, _) => Tending::Deletes(missing),
        }
    }

    /// What people should know of it.
    pub fn note(&self) -> Option<String> {
        match self {
            Tending::Spares => None,
            Tending::Deletes(missing) => {
                let missing: Vec<_> = missing.iter().map(|key| format!("{key}=no")).collect();
                Some(format!(
                    "systemd-networkd deletes our routes and rules whenever it configures a link: its networkd.conf \
                     lacks {} (uplinkd's 10-uplinkd.conf is missing, masked or overruled)",
                    missing.join(" and ")
                ))
            }
            Tending::Unread => Some(
                "systemd-networkd deletes our routes and rules whenever it configures a link, as it was started before \
                 its networkd.conf forbade it: \"systemctl restart systemd-networkd\" mends that, and interrupts its \
                 links for a moment"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the package ships.
    const OURS: &str = include_str!("../../dist/usr/lib/systemd/networkd.conf.d/10-uplinkd.conf");

    #[test]
    fn what_we_ship_is_enough_once_it_was_read() {
        assert_eq!(Tending::of([OURS], true), Tending::Spares);
        assert_eq!(Tending::of([OURS], false), Tending::Unread);
        assert_eq!(Tending::of([], true), Tending::Deletes(SETTINGS.to_vec()));
    }

    #[test]
    fn the_last_word_counts_and_what_is_no_word_does_not() {
        let rules = ["ManageForeignRoutingPolicyRules"];
        let overruled = "[Network]\n ManageForeignRoutingPolicyRules = On\n";
        assert_eq!(Tending::of([OURS, overruled], true), Tending::Deletes(rules.to_vec()));
        assert_eq!(Tending::of([overruled, OURS], true), Tending::Spares);
        let nothing = "[Network]\nManageForeignRoutes=\nManageForeignRoutes=perhaps\n#ManageForeignRoutes=yes\n\
             [DHCPv4]\nManageForeignRoutes=yes\n";
        assert_eq!(Tending::of([OURS, nothing], true), Tending::Spares);
    }

    #[test]
    fn a_note_says_what_is_missing_and_what_to_do() {
        let note = |tending: Tending| tending.note().unwrap_or_default();
        let deletes = note(Tending::of(["[Network]\nManageForeignRoutes=no"], true));
        assert!(deletes.contains("lacks ManageForeignRoutingPolicyRules=no ("), "{deletes}");
        assert!(note(Tending::Unread).contains("systemctl restart systemd-networkd"));
        assert_eq!(Tending::Spares.note(), None);
    }
}
