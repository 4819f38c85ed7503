//! The texts that an administrator reads, letter by letter.

use std::path::Path;

use ringpost_conf::{Look, Memory, Options, load};

#[track_caller]
fn check(text: &str, expected: &str) {
    let files = Memory::default().with("ringpost.conf", text).with("domains", "example.org\nnot..one\t# slip\n");
    let reports = match load(&files, Path::new("ringpost.conf"), &Options::default()) {
        Ok((_, warnings)) => warnings,
        Err(reports) => reports,
    };
    let got = reports.render(Look::Plain);
    assert!(got == expected.trim_start_matches('\n'), "expected:\n{expected}\ngot:\n{got}");
}

#[test]
fn all_errors_at_once_with_the_fix() {
    check(
        r#"table relays { 10.0.0.1 }
listen on lo0 porrt 25
action "out" relay

match from src <relayz> for any action "uot"
"#,
        r#"
error[E0202]: `listen` has no option `porrt`
 --> ringpost.conf:2:15
  |
2 | listen on lo0 porrt 25
  |               ^^^^^
  |
  = help: did you mean `port`?

error[E0301]: no such table: <relayz>
 --> ringpost.conf:5:16
  |
5 | match from src <relayz> for any action "uot"
  |                ^^^^^^^^ not declared in any file
  |
  = help: did you mean <relays>, declared at ringpost.conf:1:7?

error[E0302]: no such action: `uot`
 --> ringpost.conf:5:40
  |
5 | match from src <relayz> for any action "uot"
  |                                        ^^^^^ not declared in any file
  |
  = help: did you mean `out`, declared at ringpost.conf:3:8?

ringpost.conf: 3 errors, 0 warnings. Nothing was loaded.
"#,
    );
}

#[test]
fn two_places_of_one_mistake() {
    check(
        "listen on lo0 tls smtps\naction a relay host smpts://mx.example.org\nmatch for any action a\n",
        "
warning[W0808]: no certificate: a self-signed one for `localhost` will be made
 --> ringpost.conf:1:15
  |
1 | listen on lo0 tls smtps
  |               ^^^

error[E0602]: `smtps` and `tls` exclude each other
 --> ringpost.conf:1:19
  |
1 | listen on lo0 tls smtps
  |               --- ^^^^^
  |               |
  |               `tls` here
  |
  = help: write two `listen` lines

error[E0504]: unknown relay scheme `smpts`
 --> ringpost.conf:2:21
  |
2 | action a relay host smpts://mx.example.org
  |                     ^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: did you mean `smtps`?

ringpost.conf: 2 errors, 1 warning. Nothing was loaded.
",
    );
}

#[test]
fn what_is_not_built_is_listed_with_its_line() {
    let text = "listen on lo0 auth senders { a = a@b.example }\nfilter f proc-exec \"x\"\naction a discard\nmatch for any action a\nqueue compression\n";
    let files = Memory::default().with("c", text);
    let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
    let list: Vec<String> = config.not_yet.iter().map(|found| format!("{} {}", found.line, found.what)).collect();
    assert_eq!(list, ["c:2 filter", "c:5 queue compression"]);
    let said = config.not_yet[1].to_string();
    assert!(
        said.starts_with("`queue compression` has no effect yet") && said.contains(": take it out; a state"),
        "{said}"
    );
}

#[test]
fn what_relays_and_rules_can_do_is_not_listed() {
    let text = "listen on lo0\ntable t redis:redis.conf\n\
        action a relay host <t> src <t> helo-src <t> mail-from \"@a.example\"\n\
        action b relay domain { a.example => mx.a.example, b.example => smtps://mx.b.example, c.example => lmtp://c:24 }\n\
        warmup w { 50/d, 10/h }\n\
        pool p { 192.0.2.1 helo m1.example weight 2 warmup w, ::1 } select sticky-sender\n\
        shaping s domain a.example { connections-per-host 2, tls dane, warmup w }\n\
        action c relay src pool p\n\
        match from rdns \"*.a.example\" for any action a\nmatch for any action b\nmatch from any for any action c\n\
        mda limit max-session 3\nscheduler backend null\nscheduler limit max-inflight 5\nmta max-deferred 7\n";
    let redis = "url redis://127.0.0.1:1\nrelayhost_prefix r:\nsource_prefix s:\naddrname_prefix n:\n";
    let files = Memory::default().with("c", text).with("redis.conf", redis);
    let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
    let list: Vec<String> = config.not_yet.iter().map(|found| format!("{} {}", found.line, found.what)).collect();
    assert_eq!(list, [""; 0]);
}

#[test]
fn a_problem_in_a_data_file_points_there_and_two_places_are_shown() {
    check(
        "table d file:domains\naction a relay\nmatch from any for domain <d> action a\naction a discard\n",
        "
error[E0305]: action `a` is already declared
 --> ringpost.conf:4:8
  |
2 | action a relay
  |        - declared here
3 | match from any for domain <d> action a
4 | action a discard
  |        ^
  |
  = help: at ringpost.conf:2:8

error[E0403]: `not..one` is not a domain
 --> domains:2:1
  |
2 | not..one # slip
  | ^^^^^^^^
  |
  = help: needed by `for domain` at ringpost.conf:3:20; a name, `*.example.org` or `*`

ringpost.conf: 2 errors, 0 warnings. Nothing was loaded.
",
    );
}

#[test]
fn json_for_programs() {
    let files = Memory::default().with("c", "listen on lo0 prt 1\n");
    let reports = load(&files, Path::new("c"), &Options::default()).unwrap_err();
    let expected = concat!(
        r#"{"code":"E0202","column":15,"end_column":18,"end_line":1,"file":"c","help":"did you mean `port`?","line":1,"#,
        r#""message":"`listen` has no option `prt`","notes":[],"severity":"error"}"#,
        "\n"
    );
    assert_eq!(reports.json(), expected);
}

#[test]
fn warnings_do_not_stop_it() {
    check(
        "action out relay\nmatch from any for any action out\n",
        "
warning[W0802]: open relay: anyone may send anywhere through this rule
 --> ringpost.conf:2:1
  |
2 | match from any for any action out
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: name who may: `from src …`, or for whom: `for domain …`

ringpost.conf: 0 errors, 1 warning.
",
    );
}

#[test]
fn of_a_line_without_end_only_a_piece_is_shown() {
    let text = format!("{}listen on lo0 prot 25 {}\naccept for any relay\n", "", "tag X ".repeat(10_000));
    let files = Memory::default().with("c", &*text);
    let reports = load(&files, Path::new("c"), &Options::default()).expect_err("an error");
    let said = reports.render(Look::Plain);
    assert!(said.contains("--> c:1:15") && said.contains('^') && said.len() < 100_000, "{}", said.len());
    // Far behind, the place alone is told.
    let text = format!("table t {{ {}}} x\naccept for domain <t> relay\n", "ä.example ".repeat(10_000));
    let files = Memory::default().with("c", &*text);
    let reports = load(&files, Path::new("c"), &Options::default()).expect_err("an error");
    let said = reports.render(Look::Plain);
    let column = 1 + "table t { } ".len() + 10 * 10_000;
    assert!(said.contains(&format!("--> c:1:{column}")) && said.len() < 1_000, "{}", &said[..said.len().min(600)]);
}
