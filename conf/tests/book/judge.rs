//! What must be true of any file: reading ends, with a configuration that prints itself or with errors that have a place.

use std::path::Path;
use std::time::Duration;

use ringpost_conf::{Facts, Look, Options, Severity, convert, load_canonical};

use super::Fixture;

/// Panics where it is not. Returns the codes of what was wrong, in order: files that differ in them differ in what was run.
pub fn look_at(text: &str, included: &str, data: &[u8]) -> Vec<&'static str> {
    let fixture = Fixture { name: "c".into(), text: String::new(), after: String::new() };
    let files = |text: &str| super::files(&fixture, text, &[]).with("inc", included).with("d", data);
    let (path, options) = (fixture.file(), Options::default());
    let path = Path::new(&path);
    match convert(&files(text), path, &options) {
        Ok((converted, _)) => {
            let again = convert(&files(&converted), path, &options).map(|(text, _)| text);
            assert_eq!(
                again.unwrap_or_else(|reports| panic!("{text}\n---\n{converted}\n{reports}")),
                converted,
                "{text}"
            );
        }
        Err(reports) => assert!(reports.counts().0 > 0),
    }
    match load_canonical(&files(text), path, &options, false) {
        Ok((config, warnings, canonical)) => {
            let again = load_canonical(&files(&canonical), path, &options, false);
            let (_, _, again) = again.unwrap_or_else(|reports| panic!("{text}\n---\n{canonical}\n{reports}"));
            assert_eq!(again, canonical, "{text}");
            assert!(warnings.iter().all(|r| r.severity() == Severity::Warning));
            let facts = Facts { recipient: "a+b@x.example", sender: "s@x.example", helo: "h", ..Facts::default() };
            config.decide(&facts);
            warnings.iter().map(|report| report.code).collect()
        }
        Err(reports) => {
            assert!(reports.counts().0 > 0);
            for report in reports.iter() {
                let place = reports.place(report);
                assert!(place.line >= 1 && place.column >= 1);
            }
            reports.render(Look::Plain);
            reports.render(Look::Coloured);
            reports.iter().map(|report| report.code).collect()
        }
    }
}

/// What was taken from the processors by this thread: a wait for one counts for nothing.
pub fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    Duration::from_nanos(text.split(' ').next().expect("a field").parse().expect("a number"))
}
