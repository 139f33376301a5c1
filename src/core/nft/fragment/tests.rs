use super::*;

fn name(text: &str) -> FragmentName {
    FragmentName::new(text).unwrap_or_else(|| panic!("{text}"))
}

fn defines() -> Defines {
    let slot = |n| Slot::new(n).expect("a slot");
    Defines::new([("fiber", slot(1), "eth1"), ("my-lte.2", slot(2), "wwan0")], ["eth1"])
}

#[test]
fn names_are_those_of_tables_and_none_is_ours() {
    for good in ["a", "10-voip", "Block_list", &"x".repeat(32)] {
        assert_eq!(FragmentName::of_table(&name(good).table()), Some(name(good)));
    }
    for bad in ["", "policy", "a.b", "a b", "a/b", "ä", "a\"", &"x".repeat(33)] {
        assert_eq!(FragmentName::new(bad), None, "{bad}");
    }
    for foreign in ["uplinkd", "uplinkd_", "uplinkd_policy", "mine", "xuplinkd_a"] {
        assert_eq!(FragmentName::of_table(foreign), None, "{foreign}");
    }
}

#[test]
fn a_table_is_put_around_it_with_what_it_asks_for() {
    let text = "chain a {\n\tct mark & $mark_mask == $mark_my-lte.2 oifname $interface_my-lte.2 counter\n}";
    let fragment = Fragment::read(name("voip"), "nft.d/voip.nft", text).unwrap();
    let table = fragment.table(&defines());
    let marker = table.generation().chain();
    let body = format!(
        "define interface_my-lte.2 = \"wwan0\"\ndefine mark_mask = 0x3f000000\ndefine mark_my-lte.2 = 0x02000000\n\
         table inet uplinkd_voip {{\n\tchain {marker} {{\n\t}}\n{text}\n}}\n"
    );
    assert_eq!(table.text(false), format!("create table inet uplinkd_voip\n{body}"));
    assert_eq!(table.text(true), format!("delete table inet uplinkd_voip\n{body}"));
    assert_eq!(table.generation().uses, 1);
}

#[test]
fn it_is_another_only_where_what_it_asks_for_is() {
    let generation = |text: &str, defines: &Defines| {
        Fragment::read(name("a"), "a.nft", text).unwrap().table(defines).generation()
    };
    let (plain, by_mark) = ("chain a { accept; }", "chain a { ct mark $mark_fiber accept; }");
    assert_eq!(generation(plain, &defines()), generation(plain, &Defines::default()));
    assert_ne!(generation(by_mark, &defines()), generation(by_mark, &Defines::default()));
    assert_ne!(generation(plain, &defines()), generation("chain a { drop; }", &defines()));
    assert_ne!(generation("", &defines()), Generation::UNKNOWN);
}

#[test]
fn what_nft_says_is_told_with_our_lines() {
    let text = "chain a {\n\ttcp dport foo accept $mark_mask\n}\n";
    let table = Fragment::read(name("a"), "nft.d/a.nft", text).unwrap().table(&defines());
    let ahead = table.text(false).lines().position(|line| line == "chain a {").unwrap();
    let said =
        |line: usize| format!("/dev/stdin:{line}:12-14: Error: what\n\ttcp dport foo\n\t          ^^^");
    assert_eq!(table.complaint(&said(ahead + 2)), "nft.d/a.nft:2:12-14: Error: what");
    assert_eq!(table.complaint(&said(ahead + 9)), "nft.d/a.nft:3:12-14: Error: what", "behind its end");
    let two = format!("{}\n{}", said(ahead + 1), said(ahead + 2));
    assert_eq!(table.complaint(&two), "nft.d/a.nft:1:12-14: Error: what; and 1 more");
    assert_eq!(table.complaint(&said(1)), "nft.d/a.nft: nft says: 12-14: Error: what");
    let there = "/dev/stdin:1:19-27: Error: Could not process rule: File exists";
    assert_eq!(
        table.complaint(there),
        "nft.d/a.nft: somebody else has a table inet uplinkd_a, which is left alone"
    );
    assert_eq!(table.complaint("netlink: Error: too much\nmore"), "nft.d/a.nft: netlink: Error: too much");
}
