//! Formats (grammar §8): tokens, slices, and that nothing of a text is lost or cut in two.

use std::path::PathBuf;

use proptest::prelude::*;
use ringpost_conf::{Command, Format, FormatValues};

const VALUES: FormatValues<'_> = FormatValues {
    sender: "s@a.example",
    recipient: "Gilles+x@B.example",
    destination: "gilles@here.example",
    user_name: "gilles",
    user_directory: "/home/gilles",
    mda: "",
    tag: "",
    message_id: "",
    envelope_id: "",
    delimiter: '+',
};

fn text(format: &str, values: &FormatValues<'_>) -> String {
    Format::parse(format).expect("a format").expand_text(values).expect("short enough")
}

#[test]
fn s18_tokens_are_the_same_in_a_path_and_in_a_command() {
    let tokens = [
        ("%{sender.user}", "s"),
        ("%{sender.domain}", "a.example"),
        ("%{rcpt.user}", "Gilles+x"),
        ("%{rcpt.domain}", "B.example"),
        ("%{dest.user}", "gilles"),
        ("%{dest.domain}", "here.example"),
        ("%{user.username}", "gilles"),
        ("%{user.directory}", "/home/gilles"),
        ("%u", "%u"),
    ];
    for (format, expected) in tokens {
        assert_eq!(text(format, &VALUES), expected, "{format}");
        let path = Format::parse(&format!("/m/x{format}")).expect("a format").expand_path(&VALUES);
        assert_eq!(path, Ok(PathBuf::from(format!("/m/x{expected}"))), "{format}");
        let command = Command::parse(&format!("/bin/x 'a {format}' b")).expect("a command").expand(&VALUES);
        assert_eq!(command, Ok(vec!["/bin/x".into(), format!("a {expected}"), "b".into()]), "{format}");
    }
}

#[test]
fn s19_slices_of_a_name() {
    let cases = [
        ("[1:5]", "ille"),
        ("[0]", "g"),
        ("[-3:]", "les"),
        ("[:-2]", "gill"),
        ("[0:6]", "gilles"),
        ("[2:]", "lles"),
        ("[-4:-1]", "lle"),
        ("[9:]", ""),
        ("[3:1]", ""),
    ];
    for (slice, expected) in cases {
        assert_eq!(text(&format!("%{{user.username{slice}}}"), &VALUES), expected, "{slice}");
    }
    assert_eq!(text("%{rcpt.user[0:6]:lowercase}", &VALUES), "gilles");
    assert_eq!(text("%{rcpt.user[1:3]:strip|uppercase}", &VALUES), "IL");
}

#[test]
fn s21_addresses_are_short_for_their_pieces() {
    for name in ["sender", "rcpt", "dest"] {
        assert_eq!(
            text(&format!("%{{{name}}}"), &VALUES),
            text(&format!("%{{{name}.user}}@%{{{name}.domain}}"), &VALUES)
        );
    }
    assert_eq!(text("%{mbox.from}", &VALUES), "s@a.example");
    let bounce = FormatValues { sender: "", ..VALUES };
    assert_eq!(text("<%{sender}> <%{sender.user}> <%{mbox.from}>", &bounce), "<> <> <MAILER-DAEMON>");
}

/// A value of 0 to 64 characters, none of which is cleaned or parts it.
fn value() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._äß中🦀-]{0,64}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s20_the_whole_value_is_expanded_and_what_is_round_it_stays(
        value in value(),
        before in "[a-z /]{0,20}",
        after in "[a-z /]{0,20}",
    ) {
        let address = format!("{value}@x.example");
        let values = FormatValues { sender: &address, recipient: &address, user_name: &value, tag: &value, ..VALUES };
        let length = value.chars().count();
        for token in ["user.username", "sender.user", "rcpt.user", "tag"] {
            for slice in ["".to_owned(), "[:]".to_owned(), format!("[0:{length}]"), "[0:]".to_owned(), format!("[:{length}]")] {
                let format = format!("{before}%{{{token}{slice}}}{after}");
                prop_assert_eq!(text(&format, &values), format!("{before}{value}{after}"), "{}", format);
                // As the last thing of a text.
                prop_assert_eq!(text(&format!("x%{{{token}{slice}}}"), &values), format!("x{value}"));
            }
        }
    }

    /// By the definition of the grammar: half open, in characters, from the end where negative, clamped.
    #[test]
    fn s19_a_slice_is_made_of_whole_characters(value in value(), begin in -70_i64..70, end in -70_i64..70) {
        let values = FormatValues { user_name: &value, ..VALUES };
        let characters: Vec<char> = value.chars().collect();
        let length = characters.len() as i64;
        let place = |at: i64| (if at < 0 { length + at } else { at }).clamp(0, length) as usize;
        let expected: String = match place(begin) < place(end) {
            true => characters[place(begin)..place(end)].iter().collect(),
            false => String::new(),
        };
        prop_assert_eq!(text(&format!("%{{user.username[{begin}:{end}]}}"), &values), expected);
    }
}
