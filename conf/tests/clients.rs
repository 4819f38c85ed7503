//! Which clients the rules know: of their mail, reports are made without limit (grammar §4.7).

use std::path::Path;

use ringpost_conf::{Config, Facts, Memory, Options, load};

fn config(rules: &str) -> Config {
    let text = format!("table far sqlite:/f.conf\naction a discard\n{rules}");
    let files =
        Memory::default().with("c", text).with("/f.conf", "dbpath /f.db\nquery_netaddr select a from f where a=?;\n");
    load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|reports| panic!("{rules}\n{reports}")).0
}

#[test]
fn a_client_is_known_by_what_it_cannot_make_up_where_mail_is_taken() {
    let names = |rules: &str| {
        let facts = Facts { source: Some([192, 0, 2, 1].into()), sender: "a@a.example", ..Facts::default() };
        config(rules).names_client(&facts)
    };
    for (rules, known) in [
        ("match from any for any action a\n", false),
        ("match from any for any reject\nmatch from local for any action a\n", false),
        ("match from mail-from \"@a.example\" for any action a\n", false),
        ("match from src 198.51.100.0/24 for any action a\n", false),
        ("match !from src 198.51.100.0/24 for any action a\n", false),
        ("match from auth for any action a\nmatch from socket for any action a\n", false),
        ("match from src 192.0.2.0/24 for any reject\nmatch from any for any action a\n", false),
        ("match from any for any action a\nmatch from src 192.0.2.0/24 for any action a\n", true),
        // What would have to be asked is not asked for this.
        ("match from src <far> for any action a\n", true),
        ("match from rdns for any action a\n", true),
    ] {
        assert_eq!(names(rules), known, "{rules}");
    }
}
