//! Interval logs of HdrHistogram (`.hlog`, version 1.3 of the format, histograms in its V2 encoding, compressed), which its viewers
//! read. Values are nanoseconds, as those viewers take them to be, and three digits of them count.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::histograms::Buckets;
use crate::limits::DIGITS;

/// What a log begins with. Times of its intervals are seconds since 1970, and it may be continued by another process.
pub fn head(start: SystemTime) -> String {
    let since = start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    format!(
        "#[Logged by ringpost: nanoseconds; maxima in milliseconds]\n\
         #[Histogram log format version 1.3]\n\
         #[StartTime: {since:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    )
}

/// The line of an interval in which these latencies were recorded.
///
/// # Errors
/// None that could be told of beforehand: they are the encoder's.
pub fn line(buckets: &Buckets, start: SystemTime, length: Duration) -> io::Result<String> {
    let most = buckets.max_us().saturating_mul(NS).max(2);
    let histogram = Histogram::<u64>::new_with_bounds(1, most, DIGITS);
    let mut histogram = histogram.map_err(|error| io::Error::other(error.to_string()))?;
    for (us, count) in buckets.iter() {
        histogram.saturating_record_n(us.saturating_mul(NS), count);
    }
    let (mut out, mut encoding) = (Vec::new(), V2DeflateSerializer::new());
    let mut log =
        IntervalLogWriterBuilder::new().with_max_value_divisor(NS_IN_MS).begin_log_with(&mut out, &mut encoding)?;
    let since = start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let written = log.write_histogram(&histogram, since, length, None);
    written.map_err(|error| io::Error::other(error.to_string()))?;
    let text = String::from_utf8(out).map_err(io::Error::other)?;
    // The divisor has a line of its own in front, which stands in the head once.
    Ok(text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect())
}

/// Nanoseconds in a microsecond.
const NS: u64 = 1_000;
const NS_IN_MS: f64 = 1e6;

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::{Stage, Stages};

    /// Intervals of a log, as its own library reads it: begin, length, maximum in ms, histogram.
    fn read(text: &str) -> Vec<(Duration, Duration, f64, Histogram<u64>)> {
        use base64::Engine;
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.expect("it can be read") {
                let encoded = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram());
                let encoded = encoded.expect("base64");
                let histogram = Deserializer::new().deserialize(&mut &encoded[..]).expect("a histogram");
                found.push((interval.start_timestamp(), interval.duration(), interval.max(), histogram));
            }
        }
        found
    }

    #[test]
    fn its_own_library_reads_what_was_recorded() {
        let stages = Stages::new();
        (1..=1000).for_each(|number| stages.record(Stage::CommitWait, Duration::from_micros(100 * number)));
        let first = stages.snapshot();
        stages.record(Stage::CommitWait, Duration::from_secs(3000));
        let second = stages.snapshot().since(&first);
        let start = UNIX_EPOCH + Duration::from_millis(1_795_962_348_250);
        let (minute, stage) = (Duration::from_secs(60), Stage::CommitWait);
        let lines = [line(first.stage(stage), start, minute), line(second.stage(stage), start + minute, minute / 2)];
        let text = head(start) + &lines.map(|line| line.expect("encoded")).concat();
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(text.lines().nth(4).is_some_and(|line| line.starts_with("1795962348.250,60.000,100.0")), "{text}");
        assert!(text.lines().nth(4).is_some_and(|line| line.contains(",HISTFAAAA")), "V2, compressed: {text}");

        let [one, two] = &read(&text)[..] else { panic!("two intervals: {text}") };
        assert_eq!((one.0, one.1, one.3.len()), (Duration::from_millis(1_795_962_348_250), minute, 1000));
        let median = one.3.value_at_quantile(0.5);
        assert!(median.abs_diff(50_000_000) < 100_000, "nanoseconds: {median}");
        assert!((one.2 - 100.0).abs() < 0.2, "milliseconds: {}", one.2);
        assert_eq!((two.1, two.3.len()), (minute / 2, 1));
        assert!(two.3.max().abs_diff(3_000_000_000_000) < 10_000_000_000, "{}", two.3.max());
        let _: IntervalLogIterator<'_> = IntervalLogIterator::new(head(start).as_bytes());
        assert!(matches!(IntervalLogIterator::new(head(start).as_bytes()).next(), Some(Ok(LogEntry::StartTime(_)))));
    }

    #[test]
    fn the_longest_and_the_shortest_times_fit() {
        for us in [1, 3_600_000_000, 5 * 86_400_000_000] {
            let text = line(&Buckets::new(vec![(us, 1)], us), UNIX_EPOCH, Duration::from_secs(1)).expect("it fits");
            let found = &read(&text)[0].3;
            assert!(found.max() as f64 / (us as f64 * 1000.0) < 1.002 && found.len() == 1, "{us}: {}", found.max());
        }
    }
}
