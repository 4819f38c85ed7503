//! Tables from text to answer: what a use makes of entries, wherever they are, and what is asked of backends that are not in memory.

use std::path::Path;

use ringpost_conf::tables::{AliasTarget, Answer, Keys, ServiceKind, Value};
use ringpost_conf::{
    ActionKind, Backend, Config, Decision, Exists, Facts, HelperOption, Keyed, Lookup, Mapping, Memory, Options,
    PasswordAuth, Registered, Reports, Source, TableId, Users, load,
};

fn try_load(files: Memory) -> Result<(Config, Reports), Reports> {
    load(&files, Path::new("c"), &Options { port_offset: 20_000, ..Options::default() })
}

#[track_caller]
fn config(files: Memory) -> (Config, Reports) {
    try_load(files).unwrap_or_else(|reports| panic!("{reports}"))
}

fn targets(config: &Config, key: &str) -> Option<Vec<String>> {
    let (Mapping::Alias(map) | Mapping::Virtual(map)) = config.actions[0].mapping.as_ref()?;
    let Keyed::Memory(map) = map else { panic!("not in memory") };
    let found = map.find(Keys::new(ServiceKind::Alias, key, '+'))?;
    Some(found.iter().map(AliasTarget::to_string).collect())
}

#[test]
fn static_inline_and_file_answer_alike() {
    let rule = "match from any for domain x.example action a\n";
    let inline = format!(
        "action a mbox virtual {{ \"Joe@X.example\" => joe, jim@y.example, \"@\" => sink, root = joe }}\n{rule}"
    );
    let table = format!(
        "table v {{ \"Joe@X.example\" => joe, jim@y.example\n\"@\" => sink, # all\nroot => joe }}\naction a mbox virtual <v>\n{rule}"
    );
    let file = format!("table v file:v\naction a mbox virtual <v>\n{rule}");
    for text in [inline, table, file] {
        let v = "Joe@X.example joe,\n\tjim@y.example # two\n@ sink\nroot: joe\n";
        let (config, warnings) = config(Memory::default().with("c", text).with("v", v));
        assert!(warnings.is_empty(), "{warnings}");
        let found = |key: &str| targets(&config, key).map(|list| list.join(" "));
        assert_eq!(found("joe+x@x.EXAMPLE").as_deref(), Some("joe jim@y.example"));
        assert_eq!(found("ROOT@anywhere.example").as_deref(), Some("joe"));
        assert_eq!(found("nobody@x.example").as_deref(), Some("sink"));
    }
}

#[test]
fn an_alias_may_be_anything_that_the_grammar_has() {
    let aliases = "staff: gilles, eric@example.org, \\chl\nlog: /var/mail/%{rcpt.domain}\ncmd: \"|/bin/x 'a b' %{rcpt}\"\n\
                   list: :include:/etc/list\ngone: \"error:550 5.1.6 moved, ask\"\n";
    let text = "table a file:a\naction a maildir alias <a>\nmatch for local action a\n";
    let (config, _) = config(Memory::default().with("c", text).with("a", aliases));
    let found = |key: &str| targets(&config, key).unwrap_or_default().join(" ; ");
    assert_eq!(found("Staff+x"), "gilles ; eric@example.org ; \\chl");
    assert_eq!(found("log"), "/var/mail/%{rcpt.domain}");
    assert_eq!(found("cmd"), "|/bin/x 'a b' %{rcpt}");
    assert_eq!(found("list"), ":include:/etc/list");
    assert_eq!(found("gone"), "error:550 5.1.6 moved, ask");
    assert_eq!(targets(&config, "nobody"), None);
    let bad = Memory::default().with("c", text).with("a", "x: y z\nw: |\n");
    let reports = try_load(bad).unwrap_err();
    let list: Vec<String> = reports.iter().map(|r| format!("{} {}", reports.place(r).line, r.message)).collect();
    assert_eq!(list, ["1 `y z` is not an alias", "2 `|` is not an alias"]);
}

#[test]
fn passwd_files_are_shared() {
    let text = "table p file:p\nlisten on lo0 auth <p>\naction a lmtp /run/x userbase <p>\nmatch for local action a\n";
    let p = "joe:$6$salt$hash:1000:100:Joe Smith,,,:/home/joe:/bin/sh\njim:*:1001:100::/home/jim:/bin/sh\n";
    let (config, warnings) = config(Memory::default().with("c", text).with("p", p));
    assert_eq!(warnings.iter().map(|r| r.code).collect::<Vec<_>>(), ["W0807"]);
    assert!(warnings.to_string().contains("`jim:…` is not a password hash"), "{warnings}");
    let PasswordAuth::Required(Users::Table(Keyed::Memory(users))) = &config.listeners[0].auth.password else {
        panic!()
    };
    assert_eq!(users.get("joe").map(|one| one.secret.reveal()), Some("$6$salt$hash"));
    let Some(Keyed::Memory(base)) = &config.actions[0].local.userbase else { panic!() };
    let joe = base.get("joe").expect("joe");
    assert_eq!((joe.uid, joe.gid, joe.home.as_str(), joe.name.as_deref()), (1000, 100, "/home/joe", Some("joe")));
    // What the debug output says of secrets.
    assert!(!format!("{config:?}").contains("salt"));
}

#[test]
fn relays_are_told_everything() {
    let text = "\
table routes { example.net = smtp://10.0.0.1, *.example.com = smtp+tls://l@mx.example.com:587 }
table names { 192.0.2.1 = a.example, [2001:db8::1] = b.example }
action a relay domain <routes> auth { l = user:pass:word } helo-src <names> src { 192.0.2.1, 2001:db8::1 } mail-from @x.example tls dane ttl 2d
action b relay host { lmtp://127.0.0.1:24, lmtp:///run/lmtp.sock } backup
match for any action a
match from any tag B for any action b
";
    let reports = try_load(Memory::default().with("c", text)).unwrap_err();
    assert_eq!(reports.iter().map(|r| r.code).collect::<Vec<_>>(), ["E0602"]);
    let text = text.replace(" backup\n", "\n");
    let (config, _) = config(Memory::default().with("c", text));
    let ActionKind::Relay(relay) = &config.actions[0].kind else { panic!() };
    let Some(Keyed::Memory(routes)) = &relay.domain else { panic!() };
    let route = |name: &str| routes.find(Keys::new(ServiceKind::RelayHost, name, '+')).map(ToString::to_string);
    assert_eq!(route("Example.net").as_deref(), Some("smtp://10.0.0.1:20025"));
    assert_eq!(route("a.b.example.com").as_deref(), Some("smtp+tls://l@mx.example.com:20587"));
    assert_eq!(route("example.com"), None);
    let Some(Keyed::Memory(logins)) = &relay.auth else { panic!() };
    let login = logins.get("l").expect("l");
    assert_eq!((login.user.as_deref(), login.secret.reveal()), (Some("user"), "pass:word"));
    let Some(Keyed::Memory(names)) = &relay.helo_by_source else { panic!() };
    assert_eq!(names.get("2001:db8::1").map(|name| name.0.as_str()), Some("b.example"));
    let ActionKind::Relay(relay) = &config.actions[1].kind else { panic!() };
    let hosts: Vec<String> = relay.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["lmtp://127.0.0.1:20024", "lmtp:///run/lmtp.sock"]);
}

const SQLITE: &str =
    "# how\ndbpath /x.db\nquery_alias\tselect value from a where key=?;\nquery_domain select 1\nquery_auth select 1\n";

#[test]
fn other_backends_are_named_and_asked() {
    let text = "\
table s sqlite:/s.conf cache 5m stale 1d pool 9
table d db:/d.db
table p proc:/helper
table unused ldap:/nx
listen on lo0 auth <s>
action a mbox alias <s> userbase <getpwnam>
action b relay src <p> host <d>
match from src <d> for domain <s> action a
match from any tag X for rcpt-to <p> action b
";
    let files = Memory::default().with("c", text).with("/s.conf", SQLITE).with("/d.db", "").with("/helper", "");
    let (config, warnings) = config(files);
    assert_eq!(warnings.iter().map(|r| r.code).collect::<Vec<_>>(), ["W0803"]);
    let list: Vec<_> = config.tables.iter().map(|t| (t.name.as_str(), t.backend.clone(), t.services.clone())).collect();
    let path = |text: &str| Path::new(text).to_path_buf();
    use ServiceKind as S;
    assert_eq!(
        list,
        [
            ("s", Backend::Sqlite { path: path("/s.conf") }, vec![S::Alias, S::Domain, S::Auth]),
            ("d", Backend::Db { path: path("/d.db") }, vec![S::NetAddr, S::RelayHost]),
            ("p", Backend::Proc { program: path("/helper"), path: None }, vec![S::SourceAddr, S::MailAddr]),
            ("unused", Backend::Ldap { path: path("/nx") }, vec![]),
            ("getpwnam", Backend::Getpwnam, vec![S::UserInfo]),
        ]
    );
    assert_eq!((config.tables[0].options.cache.as_secs(), config.tables[0].options.pool), (300, 9));
    let not_yet: Vec<&str> = config.not_yet.iter().map(|found| found.what.as_str()).collect();
    assert!(!not_yet.iter().any(|what| what.starts_with("table sqlite:")), "it is asked for logins: {not_yet:?}");
    assert!(!not_yet.iter().any(|what| what.starts_with("table ldap:")), "nobody uses it: {not_yet:?}");
    let ActionKind::Relay(relay) = &config.actions[1].kind else { panic!() };
    assert_eq!((relay.source_table, relay.host_table), (Some(TableId(2)), Some(TableId(1))));
    // A decision asks what it needs, together, and no more.
    let facts = Facts { source: Some([192, 0, 2, 1].into()), recipient: "u+x@A.example", ..Facts::default() };
    let ask = |table: u32, service, key: &str| Lookup::Table { table: TableId(table), service, key: key.into() };
    let pending = |_: TableId, _: S, _: &str| Answer::<()>::Pending;
    let needs = vec![ask(1, S::NetAddr, "192.0.2.1"), ask(0, S::Domain, "a.example")];
    assert_eq!(config.decide_with(&facts, &mut { pending }), Decision::Needs(needs));
    let tagged = Facts { tag: "X", ..facts };
    let mut no_network =
        |table: TableId, _: S, _: &str| if table.0 == 1 { Answer::NotFound } else { Answer::<()>::Pending };
    assert_eq!(
        config.decide_with(&tagged, &mut no_network),
        Decision::Needs(vec![ask(2, S::MailAddr, "u+x@A.example")])
    );
}

#[test]
fn a_backend_must_have_been_told_how() {
    let codes = |settings: &str, text: &str| -> Vec<String> {
        let files =
            Memory::default().with("c", format!("{text}\nmatch from any for any reject\n")).with("/s", settings);
        match try_load(files) {
            Ok(_) => Vec::new(),
            Err(reports) => reports.iter().map(|r| format!("{} {}", r.code, r.message)).collect(),
        }
    };
    let listen = "table s sqlite:/s\nlisten on lo0 auth <s>";
    let none: [&str; 0] = [];
    assert_eq!(codes(SQLITE, listen), none);
    assert_eq!(codes("dbpath /x\n", listen), ["E0406 <s> has no `query_credentials`, which `auth` needs"]);
    assert_eq!(codes("query_auth x\n", listen), ["E0203 `/s` needs `dbpath`"]);
    assert_eq!(codes("dbpath /x\nquery_ath x\nquery_auth y\n", listen), ["E0202 `sqlite` has no option `query_ath`"]);
    assert_eq!(codes("dbpath /x\ndbpath /y\nquery_auth y\n", listen), ["E0601 `dbpath` is given twice"]);
    // A relay must know the password, not only have it judged.
    let relay = "table s sqlite:/s\naction a relay host smtps://l@h.example auth <s>\nmatch tag X action a";
    assert_eq!(codes(SQLITE, relay), ["E0406 <s> has no `query_credentials`, which `auth` needs"]);
    let ldap = "table s ldap:/s\naction a mbox alias <s>\nmatch tag X action a";
    assert_eq!(codes("url ldap://h\nbasedn x\nalias_filter (x)\nalias_attributes y\n", ldap), none);
    assert_eq!(codes("url ldap://h\n", ldap), ["E0406 <s> has no `alias_filter`, which `alias` needs"]);
    let redis = "table s redis:/s\nmatch from src <s> reject";
    assert_eq!(codes("url redis://h\nnetaddr_prefix n:\n", redis), none);
    assert_eq!(codes("url redis://h\n", redis), ["E0406 <s> has no `netaddr_prefix`, which `src` needs"]);
}

/// Files in memory, and a helper that registers aliases and these options.
struct WithHelper(Memory, Vec<HelperOption>);

impl Source for WithHelper {
    fn read(&self, path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
        self.0.read(path, bytes_max)
    }

    fn names(&self, directory: &Path) -> std::io::Result<Vec<String>> {
        self.0.names(directory)
    }

    fn exists(&self, path: &Path) -> Exists {
        self.0.exists(path)
    }

    fn registered(&self, _program: &Path, argument: Option<&Path>) -> Option<Registered> {
        assert!(argument.is_none_or(|path| path == Path::new("/s")), "{argument:?}");
        Some(Registered { services: vec!["alias".into()], options: self.1.clone() })
    }
}

#[test]
fn a_helper_says_which_keys_its_file_has() {
    let option = |key: &str, required| HelperOption { key: key.into(), required };
    let codes = |source: &str, settings: &str, options: &[HelperOption]| -> Vec<String> {
        let text = format!("table s {source}\naction a mbox alias <s>\nmatch for any action a\n");
        let files = Memory::default().with("c", text).with("/s", settings).with("/h", "");
        let files = files.with("/usr/libexec/ringpost/table-words", "");
        let described = |reports: Reports| -> Vec<String> {
            let errors = reports.iter().filter(|report| report.code.starts_with('E'));
            errors
                .map(|report| {
                    let place = reports.place(report);
                    let help = report.help.as_deref().unwrap_or_default();
                    format!("{}:{} {} {} = {help}", place.file, place.line, report.code, report.message)
                })
                .collect()
        };
        match load(&WithHelper(files, options.to_vec()), Path::new("c"), &Options::default()) {
            Ok(_) => Vec::new(),
            Err(reports) => described(reports),
        }
    };
    let none: [&str; 0] = [];
    let known = [option("members", true), option("name", false)];
    assert_eq!(codes("words:/s", "# ours\nmembers a, b\nname staff\n", &known), none);
    assert_eq!(
        codes("words:/s", "", &known),
        ["c:1 E0406 `/s` has no `members`, which `table-words` needs = add a line `members …` to /s"]
    );
    assert_eq!(
        codes("words:/s", "# ours\nmembers a\nnaem x\nunlike y\nmembers b\n", &known),
        [
            "/s:3 E0202 `table-words` has no option `naem` = did you mean `name`?",
            "/s:4 E0202 `table-words` has no option `unlike` = ",
            "/s:5 E0601 `members` is given twice = first at /s:2:1",
        ]
    );
    // Who registers none has a file of its own kind, or none.
    assert_eq!(codes("words:/s", "root:x:0:0::/root:/bin/sh\n", &[]), none);
    assert_eq!(codes("proc:/h", "", &known), none);
}

#[test]
fn lookups_for_people() {
    let text = "\
table t { \"*.example.org\", example.net }
table n { 10.0.0.0/8, local }
table c { joe = \"joe:$6$x\" }
listen on lo0 auth <c>
action a relay src { 192.0.2.1 } host <t>
match from src <n> for domain <t> action a
";
    let (config, _) = config(Memory::default().with("c", text.replace(" host <t>", "")));
    let look = |name: &str, service, key: &str| {
        let table = config.tables.iter().find(|table| table.name == name).expect("declared");
        table.memory.look(service, key, '+')
    };
    let found = |text: &str| Some(Answer::Found(vec![text.to_owned()]));
    assert_eq!(look("t", ServiceKind::Domain, "A.example.org"), found("A.example.org"));
    assert_eq!(look("t", ServiceKind::Domain, "example.org"), Some(Answer::NotFound));
    assert_eq!(look("t", ServiceKind::Alias, "x"), None);
    assert_eq!(look("n", ServiceKind::NetAddr, "10.1.2.3"), found("10.1.2.3"));
    assert_eq!(look("n", ServiceKind::NetAddr, "local"), found("local"));
    assert_eq!(look("c", ServiceKind::Credentials, "joe"), found("joe:…"));
}

#[test]
fn local_names_are_a_table() {
    let text = "action a discard\nmatch from any for domain <localnames> action a\n";
    let files = Memory::default().with("c", text).with("mailname", "mx.example.org\n");
    let (config, _) = config(files);
    let decide = |recipient: &'static str| {
        config.decide(&Facts { recipient, source: Some([192, 0, 2, 1].into()), ..Facts::default() })
    };
    assert_eq!(decide("a@MX.example.org"), Decision::Action(0));
    assert_eq!(decide("a@localhost"), Decision::Action(0));
    assert!(matches!(decide("a@example.org"), Decision::NoMatch { .. }));
}

#[test]
fn what_backends_answer_is_read_by_the_same_code() {
    assert_eq!(AliasTarget::parse("a@b.example").map(|t| t.to_string()), Ok("a@b.example".into()));
    assert_eq!(AliasTarget::parse("a b").map_err(|e| e.to_string()), Err("not an alias".into()));
}
