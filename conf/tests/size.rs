//! The largest file there may be is read in a moment, whatever is in it. What counts is the work: waiting for a processor on a
//! busy machine does not.

mod book;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use book::judge::worked;
use ringpost_conf::{Look, Memory, Options, Reports, limits, load};

/// Promised are two seconds, of a release build. Other builds are barely optimised, and a busy machine shares its caches.
const DEADLINE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 2 });

/// Reads a file of just under the limit, made of numbered pieces.
fn read(piece: impl Fn(&mut String, usize), rest: &str) -> Result<(), Reports> {
    let most = usize::try_from(limits::FILE_BYTES_MAX).expect("it fits") - rest.len();
    let mut text = String::with_capacity(most + 4096);
    for number in 0.. {
        let before = text.len();
        piece(&mut text, number);
        if text.len() > most {
            text.truncate(before);
            break;
        }
    }
    text.push_str(rest);
    let before = worked();
    let files = Memory::default().with("c", text);
    let outcome = load(&files, Path::new("c"), &Options::default()).map(drop);
    if let Err(reports) = &outcome {
        reports.render(Look::Plain);
        reports.json();
    }
    let took = worked() - before;
    eprintln!("{} ms", took.as_millis());
    assert!(took < DEADLINE, "it took {took:?}");
    outcome
}

const REST: &str = "action a discard\nmatch for local action a\n";

/// More statements than there may be; and as many as there may be.
fn too_many(piece: impl Fn(&mut String, usize), each: usize, rest: &str) {
    let reports = read(&piece, rest).expect_err("more statements than there may be");
    assert!(reports.iter().any(|report| report.code == "E0103"), "{reports}");
    let most = limits::STATEMENTS_MAX / each - rest.lines().count();
    let some = |text: &mut String, number: usize| {
        if number < most { piece(text, number) } else { text.push_str(&" ".repeat(65_536)) }
    };
    read(some, &format!("\n{rest}")).unwrap_or_else(|reports| panic!("{reports}"));
}

#[test]
fn s17_the_largest_file_of_rules() {
    let old = |text: &mut String, n: usize| {
        _ = writeln!(text, "accept from any for domain d{n}.example virtual {{ a => b{n} }} deliver to maildir");
    };
    too_many(old, 2, "");
    let new = |text: &mut String, n: usize| {
        _ = writeln!(text, "action a{n} relay host h{n}.example\nmatch from any for domain d{n}.example action a{n}");
    };
    too_many(new, 2, "");
    let actions = |text: &mut String, n: usize| _ = writeln!(text, "action a{n} discard");
    let most = limits::ACTIONS_MAX + 1;
    let reports = read(
        |text, n| if n < most { actions(text, n) } else { text.push_str(&" ".repeat(65_536)) },
        "\nmatch for any reject\n",
    );
    assert!(reports.expect_err("too many").to_string().contains("at most 65535 actions"));
}

#[test]
fn s17_the_largest_file_of_tables() {
    let many = |text: &mut String, n: usize| {
        _ = writeln!(text, "table t{n} {{ d{n}.example }}\nmatch from any for domain <t{n}> action a");
    };
    too_many(many, 2, "action a discard\n");
    let one = |text: &mut String, n: usize| {
        _ = if n == 0 { writeln!(text, "table t {{") } else { writeln!(text, "d{n}.example") };
    };
    read(one, "}\naction a discard\nmatch for domain <t> action a\n").unwrap_or_else(|reports| panic!("{reports}"));
    let mapping = |text: &mut String, n: usize| {
        _ = if n == 0 { write!(text, "table t {{") } else { write!(text, "u{n} => a{n}, b@c{n}.example, ") };
    };
    read(mapping, "}\naction a mbox alias <t>\nmatch for local action a\n")
        .unwrap_or_else(|reports| panic!("{reports}"));
}

#[test]
fn s17_the_largest_file_of_listeners_and_names() {
    let listen = |text: &mut String, n: usize| {
        let ip = n + 1;
        _ = writeln!(text, "listen on 10.{}.{}.{} tag t{n}", ip >> 16 & 255, ip >> 8 & 255, ip & 255);
    };
    too_many(listen, 1, REST);
    let filters = |text: &mut String, n: usize| {
        _ = writeln!(text, "filter f{n} phase connect match !rdns junk\nlisten on eth{n} filter {{ f{n}, f0 }}");
    };
    too_many(filters, 2, REST);
}

#[test]
fn s17_the_largest_file_of_nonsense() {
    for piece in
        ["} ", "{ ", "table t { a\n", "x y z\n", "\"", "accept\n", "match from any\n", "$x ", "a=b\n", "\\\n", "# \\\n"]
    {
        eprint!("{piece:?} ");
        let outcome = read(|text, _| text.push_str(piece), REST);
        assert!(outcome.is_err() || piece.contains(['#', '=', '\\']), "{piece:?}");
    }
    let macros = |text: &mut String, n: usize| {
        _ = writeln!(text, "mac{n} = x{n}\nlisten on $mac{n} tag ${{mac{}}}y", n / 2);
    };
    too_many(macros, 1, REST);
    let nearly = |text: &mut String, n: usize| {
        _ = writeln!(text, "table table{n} {{ x }}\nmatch for domain <tabel{n}> action a");
    };
    assert!(read(nearly, REST).is_err());
    let undeclared = |text: &mut String, n: usize| {
        _ = writeln!(text, "match for domain <t{n}> action b{n}");
    };
    assert!(read(undeclared, REST).is_err());
    let files = Memory::default().with("c", "#".repeat(usize::try_from(limits::FILE_BYTES_MAX).expect("it fits") + 1));
    let reports = load(&files, Path::new("c"), &Options::default()).expect_err("it is too large");
    assert!(reports.to_string().contains("it has more than 16777216 bytes"), "{reports}");
}
