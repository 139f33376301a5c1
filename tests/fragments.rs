//! The administrator's own nftables tables on a real kernel: what is loaded, known again, refused and left alone.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod namespace;

use namespace::nft as by_hand;
use uplinkd::core::layout::Slot;
use uplinkd::core::nft::{Defines, Fragment, FragmentName, FragmentTable};
use uplinkd::kernel::nfnl::loaded;
use uplinkd::kernel::nft::{self, Error};

/// Of everything that may stand in a table something.
const ALL_KINDS: &str = "\
# Comments may have braces: }
define ssh = 22
counter seen { comment \"} not the end\"; }
set friends {
	type ipv4_addr; flags interval
	elements = { 192.0.2.0/24, 198.51.100.7 }
}
map doors {
	type inet_service : verdict
	elements = { 80 : jump web, 443 : jump web }
}
chain web {
	counter accept
}
chain in {
	type filter hook input priority 10; policy accept;
	comment \"a chain\"
	iifname $interfaces tcp dport $ssh ip saddr != @friends counter name seen drop
	tcp dport vmap @doors; ct mark & $mark_mask == $mark_one counter
	tcp dport {
		1,
		2
	} goto web
}
";

fn fragment(name: &str, text: &str) -> FragmentTable {
    let name = FragmentName::new(name).unwrap();
    let slot = |n| Slot::new(n).unwrap();
    let defines = Defines::new([("one", slot(1), "eth1"), ("two.b-c", slot(2), "wwan0")], ["eth1", "wwan0"]);
    Fragment::read(name, "nft.d/file.nft", text).unwrap().table(&defines)
}

/// Whether this very text is loaded, and all of it stands; none where no such table of ours is there.
async fn stands(table: &FragmentTable) -> Option<bool> {
    let loaded = loaded().await.unwrap();
    loaded.fragments.get(table.name()).map(|there| there.serves(table.generation()))
}

/// What nft says, with our lines.
async fn refusal(table: &FragmentTable, over: bool) -> String {
    let checked = nft::check(&table.text(over)).await;
    let loaded = nft::load(&table.text(over)).await;
    let [checked, loaded] = [checked, loaded].map(|outcome| match outcome {
        Err(Error::Refused { complaint, .. }) => table.complaint(&complaint),
        other => panic!("{other:?}\n{}", table.text(over)),
    });
    assert_eq!(checked, loaded, "what is refused on trial is refused for good");
    checked
}

#[test]
fn a_fragment_is_loaded_known_again_and_missed() {
    namespace::run("a_fragment_is_loaded_known_again_and_missed", &["nft"], || async {
        let table = fragment("all-kinds", ALL_KINDS);
        assert_eq!(stands(&table).await, None);
        nft::check(&table.text(false)).await.unwrap();
        assert_eq!(stands(&table).await, None, "a trial loads nothing");
        nft::load(&table.text(false)).await.unwrap();
        assert_eq!(stands(&table).await, Some(true));
        let other = fragment("all-kinds", "chain a { accept; }");
        assert_eq!(stands(&other).await, Some(false));
        nft::load(&other.text(true)).await.unwrap();
        assert_eq!((stands(&other).await, stands(&table).await), (Some(true), Some(false)));
        nft::load(&table.text(true)).await.unwrap();
        // Whoever takes a rule out of it leaves our marker.
        by_hand("flush chain inet uplinkd_all-kinds web");
        assert_eq!(stands(&table).await, Some(false));
        nft::drop_table(&table.name().table()).await.unwrap();
        assert_eq!(stands(&table).await, None);
        for text in ["", "# nothing\n", "define x = 1", "set s { type mark; }"] {
            let table = fragment("odd", text);
            nft::load(&table.text(stands(&table).await.is_some())).await.unwrap();
            assert_eq!(stands(&table).await, Some(true), "{text:?}");
        }
    });
}

#[test]
fn what_nft_refuses_is_told_with_the_lines_of_the_file() {
    namespace::run("what_nft_refuses_is_told_with_the_lines_of_the_file", &["nft"], || async {
        for (text, expected) in [
            ("chain a {\n\ttcp dport rubbish accept\n}\n", "nft.d/file.nft:2:12-18: Error: "),
            ("chain a {\n\n\tct mark $mark_three accept\n}\n", "nft.d/file.nft:3:"),
            ("# $mark_one\nchain a { ct mark $mark_one; jump b; }\n", "nft.d/file.nft:2:"),
            (
                "chain a {\n\tiif \"nowhere\" accept\n}\n",
                "nft.d/file.nft:2:6-14: Error: Interface does not exist",
            ),
            ("set s { type rubbish; }\n", "nft.d/file.nft:1:"),
            ("chain a {\n\taccept }\n", "nft.d/file.nft:2:"),
        ] {
            let table = fragment("broken", text);
            let said = refusal(&table, false).await;
            assert!(said.starts_with(expected), "{text:?}: {said}");
            assert_eq!(stands(&table).await, None);
        }
        // What was loaded before stays.
        let good = fragment("broken", "chain a { counter accept; }");
        nft::load(&good.text(false)).await.unwrap();
        refusal(&fragment("broken", "chain a { rubbish; }"), true).await;
        assert_eq!(stands(&good).await, Some(true));
    });
}

#[test]
fn tables_of_others_are_neither_taken_nor_seen() {
    namespace::run("tables_of_others_are_neither_taken_nor_seen", &["nft"], || async {
        for text in [
            "add table inet uplinkd_mine",
            "add chain inet uplinkd_mine a { type filter hook input priority 0; }",
        ] {
            by_hand(text);
            let table = fragment("mine", ALL_KINDS);
            assert_eq!(stands(&table).await, None, "{text}");
            let said = refusal(&table, false).await;
            let expected = "nft.d/file.nft: somebody else has a table inet uplinkd_mine, which is left alone";
            assert_eq!(said, expected, "{text}");
        }
        assert!(by_hand("list table inet uplinkd_mine").contains("chain a"));
        // Of another family it is another table.
        by_hand("add table ip uplinkd_other");
        let table = fragment("other", ALL_KINDS);
        nft::load(&table.text(false)).await.unwrap();
        assert_eq!(stands(&table).await, Some(true));
        nft::drop_table(&table.name().table()).await.unwrap();
        let left = by_hand("list tables");
        assert_eq!(left.lines().collect::<Vec<_>>(), ["table inet uplinkd_mine", "table ip uplinkd_other"]);
    });
}
