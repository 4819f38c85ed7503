//! Local parts that are meant to get out of their place. One table for every way that an address can go.

/// What the server makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 5321 allows it, strange as it is: it is taken, and harms nobody.
    Address,
    /// RFC 6531 allows it where MAIL says SMTPUTF8.
    Utf8,
    /// It is no address: 5xx.
    None,
}

use Kind::{Address, None, Utf8};

/// Local part as it stands in the command, quotes and all.
pub const TABLE: &[(Kind, &[u8])] = &[
    // Shells: pipes, lists, substitutions, redirections, comments, variables, globs, jobs.
    (Address, b"|touch"),
    (Address, b"a|id"),
    (Address, br#""| touch rp-canary""#),
    (Address, br#""x;touch rp-canary""#),
    (Address, br#""x;>rp-canary;""#),
    (Address, br#""x&&>rp-canary""#),
    (Address, b"a&b"),
    (Address, br#""$(touch rp-canary)""#),
    (Address, b"${IFS}"),
    (Address, br#""$(>rp-canary)""#),
    (Address, b"`id`"),
    (Address, br#""`touch rp-canary`""#),
    (Address, br#""x>rp-canary""#),
    (Address, br#""x</etc/passwd""#),
    (Address, br#""a+b>rp-canary;\"""#),
    (Address, br#""a+\";>rp-canary;\"""#),
    (Address, b"a+$id"),
    (Address, b"#comment"),
    (Address, b"~root"),
    (Address, b"!!"),
    (Address, b"*"),
    (Address, b"?"),
    (Address, br#""[a-z]*""#),
    (Address, b"'"),
    (Address, b"it's"),
    (Address, br#""a b  c""#),
    (Address, br#""\"""#),
    (Address, br#""\\""#),
    (Address, br#""\a\b""#),
    (Address, b"a=b"),
    // Options.
    (Address, b"-option"),
    (Address, b"--help"),
    (Address, b"-oQ/tmp"),
    (Address, br#""-X rp-canary""#),
    // Paths.
    (Address, b"a/b"),
    (Address, b"/etc/rp-canary"),
    (Address, br#""../../rp-canary""#),
    (Address, b"%2e%2e%2frp-canary"),
    (Address, br#"".""#),
    (Address, br#""..""#),
    (Address, br#"".hidden""#),
    (Address, br#""../.""#),
    (Address, br#""a/../b""#),
    (Address, br#""""#),
    (Address, br#"" ""#),
    // Formats, of ours and of C.
    (Address, b"%"),
    (Address, b"%s%n%x"),
    (Address, b"%{rcpt}"),
    (Address, b"%{user.directory}"),
    (Address, b"%%{mda}"),
    // Directories (RFC 4515) and databases.
    (Address, br#""*)(uid=*""#),
    (Address, br#""*)(objectClass=*))(|(uid=*""#),
    (Address, br#""staff)(objectClass=*""#),
    (Address, br#""(&(a)(b))""#),
    (Address, br#""\28uid=*\29""#),
    (Address, br#""' OR '1'='1""#),
    (Address, br#""' OR 1=1 --""#),
    (Address, br#""'; drop table aliases;--""#),
    (Address, b"'/**/union/**/select/**/1--"),
    (Address, br#""canary' --""#),
    (Address, b"?1"),
    (Address, br#""x) or (1=1""#),
    // Lists, addresses within addresses, and keys that tables give a meaning.
    (Address, br#""a@b""#),
    (Address, br#""@""#),
    (Address, br#""<a@b>""#),
    (Address, br#""a,b@c""#),
    (Address, br#""canary@d.example, x""#),
    (Address, br#"":include:/etc/passwd""#),
    (Address, br#""error:550 x""#),
    (Address, br#""x\r\nRCPT TO:<y@z>""#),
    (Address, b"+canary"),
    (Address, br#""a+../x""#),
    // Long ones.
    (Address, &[b'x'; 200]),
    (Address, &[b'/'; 256]),
    (None, &[b'x'; 257]),
    (None, &[b'x'; 5000]),
    // Two ways to write one letter, marks that nobody sees, signs that look like others.
    (Utf8, "caf\u{e9}".as_bytes()),
    (Utf8, "cafe\u{301}".as_bytes()),
    (Utf8, "a\u{202e}txt.exe".as_bytes()),
    (Utf8, "\u{200f}rtl".as_bytes()),
    (Utf8, "zero\u{200b}width\u{feff}".as_bytes()),
    (Utf8, "\u{ff0f}etc\u{ff0f}rp-canary".as_bytes()),
    (Utf8, "\u{ff0e}\u{ff0e}\u{2215}x".as_bytes()),
    (Utf8, "line\u{2028}end".as_bytes()),
    (Utf8, "next\u{85}line".as_bytes()),
    (Utf8, "no\u{a0}break\u{3000}".as_bytes()),
    (Utf8, "\u{fb01}\u{2126}\u{17f}".as_bytes()),
    (Utf8, "\"\u{e9} $(>rp-canary)\"".as_bytes()),
    (Utf8, "\u{2018}quoted\u{2019}".as_bytes()),
    // UTF-8 that is none: an overlong slash, dot and NUL, a surrogate, what is beyond Unicode, a piece of a letter.
    (None, b"a\xc0\xafb"),
    (None, b"\xc0\xae\xc0\xae"),
    (None, b"a\xe0\x80\xafb"),
    (None, b"a\xc0\x80b"),
    (None, b"a\xed\xa0\x80b"),
    (None, b"a\xf4\x90\x80\x80b"),
    (None, b"a\xff"),
    (None, b"\"a\xe2\x82\""),
    // Control characters, quoted or not.
    (None, b"a\0b"),
    (None, b"\"a\0b\""),
    (None, b"\"a\\\0b\""),
    (None, b"\"a\nb\""),
    (None, b"\"a\\\nb\""),
    (None, b"\"a\r\nb\""),
    (None, b"\"a\\\r\\\nRCPT TO:<canary@ring.example>\""),
    (None, b"\"a\\\r\nRSET\r\n\""),
    (None, b"a\tb"),
    (None, b"\"a\x1b[2Jb\""),
    (None, b"a\x7fb"),
    // What needs quotes and has none, and what has them wrong.
    (None, b"a b"),
    (None, b"a;id"),
    (None, b"$(id)"),
    (None, b"*)(uid=*"),
    (None, b"a\\b"),
    (None, b"a\"b"),
    (None, b"\"a"),
    (None, b"\"a\\\""),
    (None, b"\"a\"b\"c\""),
    (None, b"a,b"),
    (None, b"a@b"),
    (None, b"<a"),
    (None, b"a> SIZE=1 <b"),
    (None, b"(comment)a"),
    (None, b".a"),
    (None, b"a."),
    (None, b"a..b"),
    (None, b".."),
    (None, b"../x"),
    (None, b""),
];

/// One that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Number of its row: the key of its message.
    pub row: usize,
    /// The local part as it is written.
    pub local: &'static str,
}

/// All that are taken.
pub fn taken() -> impl Iterator<Item = Taken> {
    let rows = TABLE.iter().enumerate().filter(|(_, (kind, _))| *kind != Kind::None);
    rows.map(|(row, (_, local))| Taken { row, local: std::str::from_utf8(local).expect("those are text") })
}

impl Taken {
    /// The local part itself: without quotes.
    pub fn unquoted(&self) -> String {
        let Some(inner) = self.local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return self.local.to_owned();
        };
        let (mut plain, mut chars) = (String::new(), inner.chars());
        while let Some(c) = chars.next() {
            plain.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
        plain
    }

    /// What comes after `+`, as written.
    pub fn extension(&self) -> &'static str {
        self.local.find('+').filter(|at| *at > 0).map_or("", |at| &self.local[at + 1..])
    }

    /// The parameter of MAIL that it needs.
    pub fn parameter(&self) -> &'static str {
        if self.local.is_ascii() { "" } else { " SMTPUTF8" }
    }
}

#[test]
fn there_are_enough_of_all_kinds() {
    let of = |kind| TABLE.iter().filter(|(of, _)| *of == kind).count();
    assert!(TABLE.len() >= 120 && of(Address) >= 60 && of(Utf8) >= 10 && of(None) >= 30, "{}", TABLE.len());
    let mut all: Vec<&[u8]> = TABLE.iter().map(|(_, local)| *local).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), TABLE.len(), "each once");
}
