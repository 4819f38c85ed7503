//! A token bucket that counts exactly: no token is ever lost to rounding, and whoever waits knows until when.

use std::time::{Duration, Instant};

use crate::limits::{BURST_TIME, Rate};

/// Tokens that come at an even pace, of which so many are kept.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Nanoseconds of the rate's time: so much of [`Bucket::credit`] is a token.
    per: u128,
    /// Tokens in that time: what a nanosecond brings.
    count: u128,
    /// Tokens kept.
    burst: u128,
    credit: u128,
    filled: Instant,
}

impl Bucket {
    /// With one token, so that a route that is forgotten and made again has no burst of its own. `burst` tokens are kept; if
    /// that is not said, what comes in [`BURST_TIME`], and one at least.
    pub(crate) fn new(rate: Rate, burst: Option<u32>, now: Instant) -> Self {
        let (per, count) = (rate.per.as_nanos().max(1), u128::from(rate.count.max(1)));
        let burst = burst.map_or(count * BURST_TIME.as_nanos() / per, u128::from).max(1);
        Self { per, count, burst, credit: per, filled: now }
    }

    /// Tokens come at another pace from now on; those that there are stay.
    pub(crate) fn pace(&mut self, rate: Rate, burst: Option<u32>, now: Instant) {
        self.fill(now);
        let old = self.per;
        let fresh = Self::new(rate, burst, now);
        (self.per, self.count, self.burst) = (fresh.per, fresh.count, fresh.burst);
        self.credit = (self.credit * self.per / old).min(self.burst * self.per);
    }

    fn fill(&mut self, now: Instant) {
        let came = now.saturating_duration_since(self.filled).as_nanos() * self.count;
        self.credit = (self.credit + came).min(self.burst * self.per);
        self.filled = self.filled.max(now);
    }

    /// Tokens there are.
    pub(crate) fn tokens(&mut self, now: Instant) -> usize {
        self.fill(now);
        usize::try_from(self.credit / self.per).unwrap_or(usize::MAX)
    }

    /// Takes a token.
    ///
    /// # Errors
    /// So long until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let wait = self.wait(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.credit -= self.per;
        Ok(())
    }

    /// So long until there is a token; zero if there is one.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        let nanos = self.per.saturating_sub(self.credit).div_ceil(self.count);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, per: Duration) -> Rate {
        Rate { count, per }
    }

    /// When tokens are taken by somebody who sleeps exactly as long as he is told, and up to `late` longer.
    fn taken(bucket: &mut Bucket, start: Instant, time: Duration, late: Duration) -> Vec<Duration> {
        let (mut now, mut at, mut turn) = (start, Vec::new(), 0);
        while now < start + time {
            match bucket.take(now) {
                Ok(()) => at.push(now - start),
                Err(wait) => {
                    turn += 1;
                    now += wait + late * (turn % 7) / 7;
                }
            }
        }
        at
    }

    /// The most that came within any `window`.
    fn most(at: &[Duration], window: Duration) -> usize {
        at.iter()
            .enumerate()
            .map(|(n, first)| at[n..].iter().take_while(|t| **t < *first + window).count())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn a_hundred_in_a_second_stay_a_hundred_over_a_minute_and_in_each_second_of_it() {
        let now = Instant::now();
        for late in [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(20)] {
            let mut bucket = Bucket::new(rate(100, Duration::from_secs(1)), None, now);
            let at = taken(&mut bucket, now, Duration::from_secs(60), late);
            assert!((5880..=6001).contains(&at.len()), "{} when {late:?} late", at.len());
            let most = most(&at, Duration::from_secs(1));
            assert!(most <= 105, "{most} in a second when {late:?} late");
        }
    }

    #[test]
    fn after_a_rest_the_burst_goes_at_once_and_no_more() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(10, Duration::from_secs(60)), Some(4), now);
        let later = now + Duration::from_secs(3600);
        assert_eq!(bucket.tokens(later), 4);
        let at = taken(&mut bucket, later, Duration::from_secs(60), Duration::ZERO);
        assert_eq!(most(&at, Duration::from_millis(1)), 4);
        assert_eq!(at.len(), 13, "and then one each six seconds, the last of which is not over");
    }

    #[test]
    fn whoever_sleeps_as_told_finds_a_token_whatever_the_rate() {
        let now = Instant::now();
        for rate in [
            rate(7, Duration::from_secs(3)),
            rate(1, Duration::from_secs(86_400)),
            rate(u32::MAX, Duration::from_secs(1)),
        ] {
            let mut bucket = Bucket::new(rate, Some(1), now);
            assert_eq!(bucket.take(now), Ok(()));
            let wait = bucket.take(now).expect_err("one was there");
            assert!(bucket.take(now + wait - Duration::from_nanos(1)).is_err());
            assert_eq!(bucket.take(now + wait), Ok(()), "{rate:?}");
        }
    }

    #[test]
    fn another_pace_counts_from_then_on_and_makes_no_tokens() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(10, Duration::from_secs(1)), Some(1), now);
        assert_eq!(bucket.take(now), Ok(()));
        let half = now + Duration::from_millis(50);
        for thousandths in [5_000, 4_999, 5_000] {
            bucket.pace(rate(thousandths, Duration::from_secs(1000)), Some(1), half);
        }
        assert_eq!(bucket.take(half), Err(Duration::from_millis(100)), "the half that there was, and 5 a second");
        assert_eq!(bucket.take(half + Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn nothing_is_lost_to_rounding() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(7, Duration::from_secs(3)), Some(1), now);
        let at = taken(&mut bucket, now, Duration::from_secs(3_000), Duration::ZERO);
        assert_eq!(at.len(), 7_000);
    }
}
