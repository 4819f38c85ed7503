//! The machine by tables: what is declared, who is asked for, what comes of it. Every rule of grammar §6 is here.

mod order;
mod setup;

use std::sync::Arc;

use self::setup::*;
use super::*;
use crate::command::Command;
use crate::model::*;
use crate::rules::{Among, Dest, Negation};
use crate::tables::AddressSet;

/// `for local deliver to mbox alias …`, and relay for all else.
fn with_aliases(text: &str) -> Setup {
    Setup::new().rule("mbox", domains(&["poolp.org"]), ActionKind::Mbox).alias(text).rule("out", Dest::Any, relay())
}

#[test]
fn s06_primary_domains_look_the_user_up() {
    let setup = Setup::new().rule("mbox", domains(&["poolp.org"]), ActionKind::Mbox);
    setup.check(&[
        ("gilles@poolp.org", "mbox gilles"),
        ("Gilles@POOLP.org", "mbox gilles"),
        ("\"gilles\"@poolp.org", "mbox gilles"),
        ("gilles+list@poolp.org", "mbox gilles"),
        ("nobody@poolp.org", "550 5.1.1"),
        ("gilles@elsewhere.example", "550 5.7.1"),
    ]);
    let down = Setup::new().rule("mbox", Dest::Any, ActionKind::Mbox).says("user gilles", Told::Failed("x".into()));
    assert_eq!(down.noted("gilles@poolp.org").0, "451 4.3.0");
    assert!(down.noted("gilles@poolp.org").1[0].contains("user `gilles`: x"));
}

#[test]
fn s23_aliases() {
    let setup = with_aliases(
        "staff: gilles, eric@elsewhere.example
         info: staff, gilles
         gilles: gilles, chl
         a: b
         b: a
         half: half2, eric
         half2: half
         logs: /var/mail/archive-%{rcpt.domain}
         prog: |/bin/cat 'a b'
         gone: error:550 5.1.6 moved away
         soon: error:451 4.2.1 later
         mixed: eric, nobody
         box: \\gilles
         eric+news: chl",
    );
    setup.check(&[
        ("gilles@poolp.org", "mbox gilles, mbox chl"),
        ("eric@poolp.org", "mbox eric"),
        ("ERIC+News@poolp.org", "mbox chl"),
        ("eric+other@poolp.org", "mbox eric"),
        ("staff@poolp.org", "mbox gilles, mbox chl, out <eric@elsewhere.example>"),
        ("info@poolp.org", "mbox gilles, mbox chl, out <eric@elsewhere.example>"),
        ("a@poolp.org", "550 5.4.6"),
        ("half@poolp.org", "mbox eric"),
        ("logs@poolp.org", "/var/mail/archive-%{rcpt.domain} by daemon"),
        ("prog@poolp.org", "|/bin/cat 'a b' by daemon"),
        ("gone@poolp.org", "550 5.1.6"),
        ("soon@poolp.org", "451 4.2.1"),
        ("mixed@poolp.org", "550 5.1.1"),
        ("box@poolp.org", "mbox gilles"),
    ]);
    let (_, notes) = setup.noted("a@poolp.org");
    assert_eq!(notes, ["loop in aliases: a -> b -> a"]);
}

#[test]
fn s23_depth_and_nodes_are_bounded() {
    let chain = |links: u32| (1..=links).map(|n| format!("a{n}: a{}\n", n + 1)).collect::<String>();
    let ten = with_aliases(&format!("{}a11x: x", chain(10))).says("user a11", Told::Found("1:1:/h".into()));
    ten.check(&[("a1@poolp.org", "mbox a11")]);
    let eleven = with_aliases(&chain(11)).says("user a12", Told::Found("1:1:/h".into()));
    eleven.check(&[("a1@poolp.org", "550 5.4.6"), ("a2@poolp.org", "mbox a12")]);
    assert!(eleven.noted("a1@poolp.org").1[0].contains("more than is allowed"));
    let many = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| format!("u{n}@x.example")).collect();
        with_aliases(&format!("list: {}", list.join(", ")))
    };
    // The recipient, the user that it is, and so many more.
    assert_eq!(many(998).noted("list@poolp.org").0.matches("out <").count(), 998);
    many(999).check(&[("list@poolp.org", "550 5.4.6")]);
}

#[test]
fn s24_s26_virtual_keys_in_their_order() {
    let setup = Setup::new().rule("v", domains(&["example.org", "other.example"]), ActionKind::Mbox).virtual_(
        "gilles+x@example.org: chl
         gilles@example.org: gilles
         eric: eric
         @example.org: gilles
         chl@example.org: error:550 5.7.1 no",
    );
    setup.check(&[
        ("gilles@example.org", "v gilles"),
        ("gilles+x@example.org", "v chl"),
        ("gilles+y@example.org", "v gilles"),
        ("eric+z@example.org", "v eric"),
        ("any@example.org", "v gilles"),
        ("eric@other.example", "v eric"),
        ("x@other.example", "550 5.1.1"),
        ("chl@example.org", "550 5.7.1"),
    ]);
    let sink = Setup::new().rule("sink", Dest::Any, maildir("~/Maildir")).virtual_("@: gilles");
    sink.check(&[("anyone@anywhere.example", "sink gilles")]);
    let some = Setup::new().rule("v", Dest::Local, ActionKind::Mbox).virtual_("root: gilles");
    some.check(&[("root@localhost", "v gilles"), ("x@localhost", "550 5.1.1")]);
}

#[test]
fn s25_s27_one_mapping_for_many_domains_is_a_regular_domain() {
    let two = &["poolp.org", "opensmtpd.org"];
    let setup =
        Setup::new().rule("v", domains(two), ActionKind::Mbox).virtual_("staff: gilles,eric,chl\ngilles: gilles");
    let all = "v gilles, v eric, v chl";
    setup.check(&[("staff@poolp.org", all), ("staff@opensmtpd.org", all), ("staff@third.example", "550 5.7.1")]);
    let regular = Setup::new().rule("v", domains(two), ActionKind::Mbox);
    assert_eq!(setup.noted("gilles+x@poolp.org").0, regular.noted("gilles+x@poolp.org").0);
}

#[test]
fn s28_forward() {
    let base = || with_aliases("list: gilles").forward("gilles", "eric@elsewhere.example, gilles\n");
    let both = "out <eric@elsewhere.example>, mbox gilles";
    base().check(&[("gilles@poolp.org", both), ("gilles+x@poolp.org", both), ("list@poolp.org", both)]);
    base()
        .forward("gilles", "\\gilles\n\"|/bin/cat -a 'x y'\"\n/tmp/copy # mine")
        .check(&[("gilles@poolp.org", "mbox gilles, |/bin/cat -a 'x y' by gilles, /tmp/copy by gilles")]);
    base().forward("gilles", "# nothing\n\n").check(&[("gilles@poolp.org", "mbox gilles")]);
    base().forward("gilles", "eric\n").forward("eric", "chl\n").check(&[("gilles@poolp.org", "mbox chl")]);
    base().forward("gilles", "eric\n").forward("eric", "gilles\n").check(&[("gilles@poolp.org", "550 5.4.6")]);
    base().forward("gilles", "\\eric\n").forward("eric", "chl\n").check(&[("gilles@poolp.org", "mbox eric")]);
    base().forward("gilles", "two words\n").check(&[("gilles@poolp.org", "451 4.2.4")]);
    base().forward("root", "|/bin/x\n").check(&[("root@poolp.org", "451 4.2.4")]);
    base().forward("root", "gilles\n").check(&[("root@poolp.org", both)]);
    let wrong = base().says("forward gilles", Told::Unsafe("others may write".into()));
    assert_eq!(
        wrong.noted("gilles@poolp.org"),
        ("451 4.2.4".into(), vec!["mail for gilles: others may write".to_owned()])
    );
    let down = base().says("forward gilles", Told::Failed("no answer".into()));
    down.check(&[("gilles@poolp.org", "451 4.3.0"), ("eric@poolp.org", "mbox eric")]);
}

#[test]
fn s29_users_of_tables_and_of_the_system() {
    let setup = Setup::new()
        .rule("one", domains(&["poolp.org"]), maildir("~/Maildir"))
        .userbase("vuser: vuser:10:100:/tmp/vuser")
        .rule("two", domains(&["opensmtpd.org"]), maildir("~/Maildir"))
        .userbase("vuser: 20:200:/tmp2/vuser")
        .rule("three", domains(&["pool.ps"]), maildir("~/Maildir"));
    setup.check(&[
        ("vuser@poolp.org", "one vuser"),
        ("VUser+x@opensmtpd.org", "two vuser"),
        ("gilles@poolp.org", "550 5.1.1"),
        ("root@pool.ps", "three root"),
        ("vuser@pool.ps", "550 5.1.1"),
    ]);
    let outlines = Outlines::new(&setup.config);
    let mut one = Expansion::new(&setup.config, &outlines, setup.facts("vuser@opensmtpd.org"));
    let forward =
        Question::Forward(User { name: "vuser".into(), uid: 20, gid: 200, home: "/tmp2/vuser".into(), in_table: true });
    assert_eq!(one.step(), Step::Needs(vec![forward.clone()]));
    one.tell(forward, Told::NotFound);
    let Step::Done(Ok(deliveries)) = one.step() else { panic!() };
    assert_eq!(deliveries[0].way.user().unwrap().to_string(), "vuser=20:200:/tmp2/vuser");
}

#[test]
fn who_needs_no_user_is_nobody_in_particular() {
    let path = "/srv/%{dest.domain}/%{dest.user:lowercase}";
    let setup = Setup::new().rule("m", Dest::Any, maildir(path)).alias("staff: gilles, ghost\nout: x@y.example");
    setup.check(&[
        ("Ghost+x@a.example", "m <Ghost+x@a.example>"),
        ("staff@a.example", "m <gilles@a.example>, m <ghost@a.example>"),
        ("out@a.example", "m <x@y.example>"),
    ]);
    assert!(!setup.config.actions[0].needs_user() && !setup.config.actions[0].is_plain());
    let needs = |kind: ActionKind| Setup::new().rule("m", Dest::Any, kind).config.actions[0].needs_user();
    assert!(needs(maildir("~/x")) && needs(maildir("/m/%{user.username}")) && needs(ActionKind::Mbox));
    assert!(!needs(relay()) && !needs(ActionKind::Discard));
    let with_base = Setup::new().rule("m", Dest::Any, maildir(path)).userbase("v: 1:1:/v");
    with_base.check(&[("v@a.example", "m v"), ("w@a.example", "550 5.1.1")]);
}

#[test]
fn an_action_s_user_takes_all_and_forwards_only_his_own() {
    let setup = || {
        Setup::new()
            .rule("vmail", Dest::Any, maildir("/srv/%{dest.user}"))
            .with(|action| action.local.user = Some("gilles".into()))
            .forward("gilles", "eric@elsewhere.example")
    };
    let setup = setup().rule("other", Dest::Any, relay());
    assert_eq!(setup.noted("anybody@a.example").0, "vmail gilles");
    // `eric@elsewhere.example` is for the same rule again.
    assert_eq!(setup.noted("gilles@a.example").0, "vmail gilles");
    let nobody = Setup::new()
        .rule("vmail", Dest::Any, maildir("/srv/%{dest.user}"))
        .with(|action| action.local.user = Some("vmail".into()));
    assert_eq!(
        nobody.noted("x@a.example"),
        ("451 4.3.5".into(), vec!["action `vmail`: there is no user `vmail`".into()])
    );
}

#[test]
fn expand_only_and_forward_only() {
    let table = "list: gilles, eric@elsewhere.example\nfile: /var/x\nout: eric@elsewhere.example";
    let setup = |kind| {
        let setup =
            Setup::new().rule("only", domains(&["poolp.org"]), kind).alias(table).rule("out", Dest::Any, relay());
        setup.forward("chl", "chl@elsewhere.example")
    };
    setup(ActionKind::ExpandOnly).check(&[
        ("out@poolp.org", "out <eric@elsewhere.example>"),
        ("file@poolp.org", "/var/x by daemon"),
        ("chl@poolp.org", "out <chl@elsewhere.example>"),
        ("gilles@poolp.org", "550 5.1.1"),
        ("list@poolp.org", "550 5.1.1"),
    ]);
    setup(ActionKind::ForwardOnly).check(&[
        ("out@poolp.org", "out <eric@elsewhere.example>"),
        ("chl@poolp.org", "out <chl@elsewhere.example>"),
        ("file@poolp.org", "451 4.2.1"),
        ("gilles@poolp.org", "451 4.2.1"),
        ("nobody@poolp.org", "550 5.1.1"),
    ]);
}

#[test]
fn tables_on_relay() {
    let alias = Setup::new()
        .rule("in", domains(&["b.example"]), relay())
        .alias("staff: gilles, eric@b.example\nme: me, x@c.example\nfile: /var/x")
        .rule("out", Dest::Any, relay())
        .with(|action| action.kind = ActionKind::Relay(Box::new(Relay { helo: Some("h".into()), ..Relay::default() })));
    alias.check(&[
        ("anyone@b.example", "in <anyone@b.example>"),
        ("Staff+1@b.example", "in <gilles@b.example>, in <eric@b.example>"),
        ("me@b.example", "in <me@b.example>, out <x@c.example>"),
        ("file@b.example", "/var/x by daemon"),
    ]);
    let map = Setup::new().rule("in", domains(&["b.example"]), relay()).virtual_(
        "a@b.example: A@b.example
         c: relay
         d: c
         e: \\zed
         f@b.example: nobody
         g@b.example: error:550 5.7.1 gone",
    );
    map.check(&[
        ("a@b.example", "in <a@b.example>"),
        ("c+x@b.example", "in <c+x@b.example>"),
        ("d@b.example", "in <c@b.example>"),
        ("e@b.example", "in <zed@b.example>"),
        ("f@b.example", "550 5.1.1"),
        ("g@b.example", "550 5.7.1"),
        ("h@b.example", "550 5.1.1"),
    ]);
}

#[test]
fn rules_are_asked_again_and_the_source_is_local_then() {
    let setup = Setup::new()
        .rule("v", domains(&["poolp.org"]), ActionKind::Mbox)
        .virtual_(
            "fwd: x@elsewhere.example\nback: fwd@poolp.org\nself: self@poolp.org\nboth: x@elsewhere.example, gilles",
        )
        .rule("out", Dest::Any, relay())
        .for_local_sources();
    setup.check(&[
        ("fwd@poolp.org", "out <x@elsewhere.example>"),
        ("back@poolp.org", "out <x@elsewhere.example>"),
        ("both@poolp.org", "out <x@elsewhere.example>, v gilles"),
        ("x@elsewhere.example", "550 5.7.1"),
        ("self@poolp.org", "550 5.4.6"),
    ]);
    assert_eq!(setup.noted("self@poolp.org").1, ["loop in aliases: <self@poolp.org> -> <self@poolp.org>"]);
    // The same address is no loop where the rules take it otherwise the second time.
    let plain = Negation::Plain;
    let mut other = Setup::new()
        .rule("inner", domains(&["poolp.org"]), relay())
        .for_local_sources()
        .rule("v", domains(&["poolp.org"]), ActionKind::Mbox)
        .virtual_("again: again@poolp.org");
    other.check(&[("again@poolp.org", "inner <again@poolp.org>")]);
    // A `reject` line for what comes out refuses all of it.
    let mut no = AddressSet::default();
    assert!(no.insert("@elsewhere.example"));
    other.config.matches.insert(
        0,
        Match {
            dest: (plain, Dest::Recipient(Among::Table(Arc::new(no)))),
            outcome: crate::model::Outcome::Reject(Reply { code: 554, status: "5.7.0".into(), text: "no".into() }),
            ..Match::everything(0, Line::built_in())
        },
    );
    other.config.actions[1].mapping = Some(Mapping::Virtual(aliases("both: gilles, x@elsewhere.example")));
    other.check(&[("both@poolp.org", "554 5.7.0"), ("x@elsewhere.example", "554 5.7.0")]);
}

#[test]
fn lists_in_files() {
    let setup = || with_aliases("list: :include:/etc/list\nlocal: gilles");
    let with = |text: &str| setup().says("include /etc/list", Told::Found(text.into()));
    with("gilles\n# no\neric@elsewhere.example, /var/x")
        .check(&[("list@poolp.org", "mbox gilles, out <eric@elsewhere.example>, /var/x by daemon")]);
    with("").check(&[("list@poolp.org", "451 4.2.4")]);
    with("two words").check(&[("list@poolp.org", "451 4.2.4")]);
    with(":include:/etc/list").check(&[("list@poolp.org", "550 5.4.6")]);
    setup().check(&[("list@poolp.org", "451 4.2.4")]);
    let unsafe_ = setup().says("include /etc/list", Told::Unsafe("others may write".into()));
    assert_eq!(unsafe_.noted("list@poolp.org").1, ["<list@poolp.org>: others may write"]);
    // In a user's `.forward` it is read as that user.
    setup()
        .forward("gilles", ":include:/home/gilles/list")
        .says("include /home/gilles/list as gilles", Told::Found("|/bin/x".into()))
        .check(&[("gilles@poolp.org", "|/bin/x by gilles")]);
}

#[test]
fn what_fails_is_temporary_and_what_is_refused_is_refused_first() {
    let remote = |setup: Setup| setup.with(|action| action.mapping = Some(Mapping::Alias(Keyed::Remote(TableId(0)))));
    let base = || remote(Setup::new().table("db").rule("mbox", Dest::Any, ActionKind::Mbox));
    let found = |text: &str| Told::Found(text.into());
    base()
        .says("db alias staff", found("gilles, \"|cmd a, b\""))
        .check(&[("staff@x.org", "mbox gilles, |cmd a, b by daemon"), ("gilles@x.org", "mbox gilles")]);
    base().says("db alias gilles", Told::Failed("down".into())).check(&[("gilles@x.org", "451 4.3.0")]);
    let broken = base().says("db alias gilles", found("a b"));
    assert_eq!(
        broken.noted("gilles@x.org"),
        (
            "451 4.3.0".into(),
            vec!["<gilles@x.org> cannot be decided on: table <db> alias `gilles`: `a b` is not an alias".into()]
        )
    );
    // One branch unknown, the other refused.
    let both = base().says("db alias both", found("eric, nobody")).says("db alias eric", Told::Failed("down".into()));
    both.check(&[("both@x.org", "550 5.1.1"), ("eric@x.org", "451 4.3.0")]);
    let both =
        base().says("db alias both", found("eric, error:550 5.7.1 no")).says("db alias eric", Told::Failed("x".into()));
    both.check(&[("both@x.org", "550 5.7.1")]);
}

#[test]
fn conditions_ask_remote_tables() {
    let mut setup = Setup::new().table("d").rule("mbox", Dest::Any, ActionKind::Mbox).rule("out", Dest::Any, relay());
    let remote = Among::Remote { table: TableId(0), service: ServiceKind::Domain };
    setup.config.matches[0].dest.1 = Dest::Domain(remote);
    let setup =
        setup.says("d domain a.example", Told::Found("1".into())).says("d domain b.example", Told::Failed("x".into()));
    setup.check(&[
        ("gilles@A.example", "mbox gilles"),
        ("nobody@a.example", "550 5.1.1"),
        ("gilles@b.example", "451 4.3.0"),
        ("gilles@c.example", "out <gilles@c.example>"),
    ]);
}

#[test]
fn the_same_delivery_is_made_once() {
    let values = FormatValues { sender: "s@x.org", recipient: "r@x.org", ..FormatValues::default() };
    let setup = Setup::new()
        .rule("own", Dest::Any, maildir("~/Maildir"))
        .rule("shared", Dest::Any, maildir("/srv/all"))
        .rule("by-name", Dest::Any, maildir("/srv/%{dest.user}-%{evpid}"))
        .rule("out", Dest::Any, relay());
    let user = |name: &str, home: &str| User { name: name.into(), uid: 1, gid: 1, home: home.into(), in_table: false };
    let of = |action: usize, address: &str, way: Way| Identity::of(action, address, &way, &setup.config, &values);
    let (a, b) = (user("a", "/h/a"), user("b", "/h/b"));
    assert_eq!(of(0, "a@x", Way::User(a.clone())), of(0, "b@x", Way::User(a.clone())));
    assert_ne!(of(0, "a@x", Way::User(a.clone())), of(0, "a@x", Way::User(b)));
    assert_eq!(of(1, "a@x", Way::Address), of(1, "b@y", Way::Address));
    assert_eq!(of(2, "a@x", Way::Address), of(2, "a@y", Way::Address));
    assert_ne!(of(2, "a@x", Way::Address), of(2, "b@x", Way::Address));
    assert_eq!(of(3, "a@x.org", Way::Address), of(3, "a@X.org", Way::Address));
    assert_ne!(of(3, "a@x.org", Way::Address), of(3, "A@x.org", Way::Address));
    let pipe = |user: Option<User>| Way::Pipe { user, command: Command::parse("/bin/x %{rcpt}").unwrap() };
    assert_eq!(of(0, "a@x", pipe(None)), of(0, "b@x", pipe(None)));
    assert_ne!(of(0, "a@x", pipe(None)), of(0, "a@x", pipe(Some(a))));
}

#[test]
fn root_is_in_front_of_what_tables_say() {
    let mut setup = with_aliases("list: :include:/etc/../../list\nf: /var/x");
    setup.config.root = Some("/t".into());
    let setup = setup.says("include /t/etc/list", Told::Found("x@y.example".into()));
    setup.check(&[("list@poolp.org", "out <x@y.example>")]);
    let outlines = Outlines::new(&setup.config);
    let mut one = Expansion::new(&setup.config, &outlines, setup.facts("gilles@poolp.org"));
    one.step();
    one.tell(Question::User("gilles".into()), Told::Found("gilles:1:1:/home/../gilles".into()));
    let Step::Needs(needs) = one.step() else { panic!() };
    assert!(matches!(&needs[0], Question::Forward(user) if user.home == "/t/home/gilles"), "{needs:?}");
}
