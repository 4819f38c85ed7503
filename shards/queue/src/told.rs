//! How far the sender of a waiting envelope has been told that it waits (`delayed`, RFC 3464 §2.3.3). Pure.

use std::time::Duration;

/// The age of an envelope that its sender was told of last. Kept in two bytes: exact to 4095 s, beyond that to the eleventh
/// binary digit, rounded down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told(pub(crate) u16);

impl Told {
    /// Of no age.
    pub const NOTHING: Self = Self(0);

    fn of(age: Duration) -> Self {
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let shift = (u32::BITS - seconds.leading_zeros()).saturating_sub(DIGITS);
        // Each further shift begins where the one before ends, so that larger ages have larger numbers.
        Self(((shift << (DIGITS - 1)) + (seconds >> shift)) as u16)
    }

    /// What is to be told at `age`: the last of `ages`, which ascend, that it has come to. Those before it, and those that
    /// were told, are not told any more.
    pub fn due(self, ages: &[Duration], age: Duration) -> Option<Self> {
        let last = ages.iter().rev().find(|one| **one <= age).map(|one| Self::of(*one));
        last.filter(|last| *last > self)
    }

    /// The first of `ages`, which ascend, that is still to be told.
    pub fn next(self, ages: &[Duration]) -> Option<Duration> {
        ages.iter().copied().find(|one| Self::of(*one) > self)
    }
}

const DIGITS: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const fn hours(count: u64) -> Duration {
        Duration::from_secs(count * 3600)
    }

    #[test]
    fn larger_ages_have_larger_numbers_and_two_that_differ_by_a_thousandth_are_told_apart() {
        let mut last = Told::NOTHING;
        for seconds in (1..10_000).chain((10_000..40_000_000).step_by(997)) {
            let now = Told::of(Duration::from_secs(seconds));
            assert!(now >= last && (seconds > 4095 || now > last), "{seconds}");
            assert!(Told::of(Duration::from_secs(seconds + seconds.div_ceil(1000))) > now, "{seconds}");
            last = now;
        }
        assert!(Told::of(Duration::MAX) > last);
    }

    #[test]
    fn s100_each_age_is_told_once_and_what_was_missed_with_the_next() {
        let ages = [hours(4), hours(24), hours(48)];
        assert_eq!(Told::NOTHING.due(&ages, hours(4) - Duration::from_secs(1)), None);
        let first = Told::NOTHING.due(&ages, hours(4)).expect("its time has come");
        assert_eq!((first.due(&ages, hours(23)), first.next(&ages)), (None, Some(hours(24))));
        let all = Told::NOTHING.due(&ages, hours(60)).expect("nothing was told");
        assert_eq!((all.due(&ages, hours(90)), all.next(&ages)), (None, None));
        assert_eq!(first.due(&ages, hours(24)), Told::NOTHING.due(&ages, hours(24)));
    }

    #[test]
    fn other_ages_after_a_reload_repeat_nothing_and_leave_out_nothing() {
        let told = Told::NOTHING.due(&[hours(1), hours(4)], hours(5)).expect("its time has come");
        assert_eq!(told.due(&[hours(1), hours(2), hours(3)], hours(6)), None, "all are before what was told");
        assert_eq!(told.next(&[hours(6)]), Some(hours(6)));
        assert!(told.due(&[hours(6)], hours(6)).is_some());
    }
}
