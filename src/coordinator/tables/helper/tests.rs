//! A helper of a few lines of shell, and what it does wrong.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::super::tests::{block, declared, failed, found, surroundings, until};
use super::super::{Answer, Backend, Tables};
use super::*;

/// A helper of a few lines: `die` ends it, `hang` is never answered, `table` is the name it was given.
const SCRIPT: &str = r#"
while IFS='|' read -r kind version time name operation service id key; do
    case "$kind|$version" in
    config\|ready) echo "register|alias"; echo "register|auth"; echo "register|source"; echo "register|ready" ;;
    table\|0.1)
        case "$operation|$key" in
        update\|*) echo "update-result|$service|ok" ;;
        fetch\|*) echo "fetch-result|$id|found|192.0.2.1" ;;
        check\|gilles:secret) echo "check-result|$id|found" ;;
        check\|*) echo "check-result|$id|not-found" ;;
        lookup\|die) echo "dying of $key" >&2; exit 3 ;;
        lookup\|hang) ;;
        lookup\|stuck) sleep 1000 ;;
        lookup\|pid) echo "lookup-result|$id|found|$$" ;;
        lookup\|broken) echo "lookup-result|$id|error|no such luck" ;;
        lookup\|silly) echo "hello world" ;;
        lookup\|argument) echo "lookup-result|$id|found|$0 $1" ;;
        lookup\|table) echo "lookup-result|$id|found|$name|$service" ;;
        *) echo "lookup-result|$id|not-found" ;;
        esac ;;
    esac
done
"#;

struct World {
    _dir: tempfile::TempDir,
    tables: Tables,
    said: Arc<Mutex<Vec<Event>>>,
}

fn world(script: &str, timeout: Duration) -> World {
    world_with(script, timeout, Path::new("/etc/mail/helper.conf"))
}

fn world_with(script: &str, timeout: Duration, file: &Path) -> World {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("helper");
    std::fs::write(&program, format!("#!/bin/sh\n{script}")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (tables, said) = tables(program, Some(Argument::read(file)), timeout);
    World { _dir: dir, tables, said }
}

fn tables(program: PathBuf, argument: Option<Argument>, timeout: Duration) -> (Tables, Arc<Mutex<Vec<Event>>>) {
    let (surroundings, said) = surroundings();
    let mut table = declared(Backend::Helper { program, argument });
    (table.cache, table.negative, table.timeout) = (Duration::ZERO, Duration::ZERO, timeout);
    (Tables::new(vec![table], &surroundings).unwrap(), said)
}

impl World {
    async fn ask(&self, service: Service, key: &str) -> Answer {
        self.tables.lookup("t", service, key).await
    }
}

#[test]
fn a_helper_is_asked_in_its_lines() {
    let world = world(SCRIPT, Duration::from_secs(30));
    block(async {
        assert_eq!(world.tables.check().await, []);
        assert_eq!(world.tables.provides("t", Service::Alias).await, Ok(true));
        assert_eq!(world.tables.provides("t", Service::Credentials).await, Ok(false));
        assert_eq!(world.ask(Service::Alias, "table").await, found("t|alias"));
        let Answer::Found(argument) = world.ask(Service::Alias, "argument").await else { panic!() };
        assert!(argument.ends_with(" /etc/mail/helper.conf"), "{argument}");
        assert_eq!(world.ask(Service::SourceAddr, "").await, found("192.0.2.1"));
        assert_eq!(world.ask(Service::Auth, "gilles:secret").await, found(""));
        assert_eq!(world.ask(Service::Auth, "gilles:wrong").await, Answer::NotFound);
        failed(world.ask(Service::Alias, "broken").await, "no such luck");
        failed(world.ask(Service::Credentials, "x").await, "does not register `credentials`");
        assert_eq!(world.tables.update("t").await, Ok(()));
        for key in ["*)(uid=*", "' OR 1=1 --", "a\0b", "a\nlookup", "x\rpid", "a|b|c", ""] {
            assert_eq!(world.ask(Service::Alias, key).await, Answer::NotFound, "{key:?}");
        }
    });
}

#[test]
fn one_that_asks_for_keys_is_told_and_one_that_does_not_is_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("helper.conf");
    std::fs::write(&file, "name staff\nurl a|b\n").unwrap();
    // What it is told before `config|ready`, as its answer.
    let script = "while read -r line; do case $line in\n\
        'config|ready') printf 'register|option|url|required\\nregister|alias\\nregister|option|name\\n'\n\
        echo 'register|ready' ;;\n\
        'config|'*) told=\"$told $line\" ;;\n\
        *) IFS='|'; set -- $line; echo \"lookup-result|$7|found|$told\" ;;\n\
        esac; done\n";
    let world = world_with(script, Duration::from_secs(30), &file);
    block(async {
        let told = " config|smtpd-version|7.7.0 config|protocol|0.1 config|tablename|t config|option|name|staff \
                    config|option|url|a|b config|options|2";
        assert_eq!(world.ask(Service::Alias, "x").await, found(told));
    });
    let program = world._dir.path().join("helper");
    let said = super::super::direct::registered(&program, Some(&file)).unwrap();
    assert_eq!(said.services, ["alias"]);
    let options: Vec<_> = said.options.iter().map(|option| (option.key.as_str(), option.required)).collect();
    assert_eq!(options, [("url", true), ("name", false)]);
    // Without a file there is nothing to tell.
    let world = World { tables: tables(program, None, Duration::from_secs(30)).0, ..world };
    block(async {
        let told = " config|smtpd-version|7.7.0 config|protocol|0.1 config|tablename|t";
        assert_eq!(world.ask(Service::Alias, "x").await, found(told));
    });
}

#[test]
fn one_that_dies_is_a_failure_and_comes_back() {
    let world = world(SCRIPT, Duration::from_secs(30));
    block(async {
        let first = world.ask(Service::Alias, "pid").await;
        assert!(matches!(first, Answer::Found(_)), "{first:?}");
        failed(world.ask(Service::Alias, "die").await, "the helper has ended");
        let second = world.ask(Service::Alias, "pid").await;
        assert!(matches!(second, Answer::Found(_)) && first != second, "{first:?} {second:?}");
        // Killed from outside: nobody asked it just then, so nobody need notice.
        let Answer::Found(pid) = second else { panic!() };
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until("it runs again", async |_| {
            let Answer::Found(now) = world.ask(Service::Alias, "pid").await else { return false };
            now != pid.as_raw_nonzero().to_string()
        })
        .await;
        failed(world.ask(Service::Alias, "silly").await, "the helper has ended");
        let complaint = Event::Helper { table: "t".into(), line: "dying of die".into() };
        until("its complaint is heard", async |_| world.said.lock().unwrap().contains(&complaint)).await;
    });
}

#[test]
fn one_that_hangs_delays_no_other_question() {
    let world = world(SCRIPT, Duration::from_secs(60));
    block(async {
        tokio::select! {
            answer = world.ask(Service::Alias, "hang") => panic!("{answer:?}"),
            () = async {
                for _ in 0..50 {
                    assert_eq!(world.ask(Service::Alias, "table").await, found("t|alias"));
                }
            } => {}
        }
    });
}

#[test]
fn one_that_is_stuck_is_ended_and_started_again() {
    let world = world(SCRIPT, Duration::from_secs(1));
    block(async {
        let mut first = None;
        until("it runs", async |_| {
            let Answer::Found(pid) = world.ask(Service::Alias, "pid").await else { return false };
            first = Some(pid);
            true
        })
        .await;
        for _ in 0..5 {
            failed(world.ask(Service::Alias, "stuck").await, "");
        }
        let first = first.expect("it ran");
        until("another one runs", async |_| match world.ask(Service::Alias, "pid").await {
            Answer::Found(pid) => pid != first,
            _ => false,
        })
        .await;
        until("the first has been ended", async |_| !std::path::Path::new(&format!("/proc/{first}")).exists()).await;
    });
}

#[test]
fn programs_that_are_no_helpers_are_found_out() {
    block(async {
        for (script, why) in [
            ("exit 1", "it has ended before it was ready"),
            ("echo hello", "\"hello\" instead of `register|…`"),
            ("echo 'register|option|a|b'", "\"register|option|a|b\" instead of `register|…`"),
            ("head -c 200000 /dev/zero | tr '\\0' x", "a line of more than"),
            ("printf '\\377\\n'", "a line that is not UTF-8"),
        ] {
            let world = world(script, Duration::from_secs(30));
            let problems = world.tables.check().await;
            assert!(problems[0].to_string().contains(why), "{script}: {problems:?}");
            failed(world.ask(Service::Alias, "x").await, why);
        }
    });
}

#[test]
fn replies_are_read_strictly() {
    for (line, expected) in [
        ("lookup-result|00000000000000ff|found|a|b", Some((255, Reply::Found("a|b".into())))),
        ("lookup-result|1|not-found", Some((1, Reply::NotFound))),
        ("check-result|1|found", Some((1, Reply::Found(String::new())))),
        ("update-result|1|ok", Some((1, Reply::Done))),
        ("fetch-result|1|error|why", Some((1, Reply::Error("why".into())))),
        ("lookup-result|1|error", Some((1, Reply::Error("the helper reports an error without a reason".into())))),
        ("lookup-result|1", None),
        ("lookup-result|x|found|a", None),
        ("lookup-result|1|perhaps", None),
        ("", None),
        ("table|0.1", None),
    ] {
        assert_eq!(parse(line), expected, "{line}");
    }
}
