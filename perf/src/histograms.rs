//! A histogram that has left its shard: only the buckets in use, so that it is small to send and exact to merge.

use serde::{Deserialize, Serialize};

/// Counts by latency in microseconds, ascending. A bucket is named by the largest value it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    buckets: Vec<(u64, u64)>,
    sum_us: u64,
}

impl Buckets {
    /// Nothing recorded.
    pub const EMPTY: Self = Self { buckets: Vec::new(), sum_us: 0 };

    /// Of `(microseconds, count)` in any order, and the exact sum of all values in microseconds.
    pub fn new(mut buckets: Vec<(u64, u64)>, sum_us: u64) -> Self {
        buckets.retain(|bucket| bucket.1 > 0);
        buckets.sort_unstable();
        let mut all = Self { buckets: Vec::with_capacity(buckets.len()), sum_us };
        buckets.into_iter().for_each(|(us, count)| all.push(us, count));
        all
    }

    /// `(microseconds, count)`, ascending, no count zero.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().copied()
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.1).sum()
    }

    /// Sum of all values, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Arithmetic mean in microseconds, 0 of nothing.
    pub fn mean_us(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum_us as f64 / count as f64,
        }
    }

    /// Largest value in microseconds, 0 of nothing.
    pub fn max_us(&self) -> u64 {
        self.buckets.last().map_or(0, |bucket| bucket.0)
    }

    /// The value in microseconds that a share of `quantile` (0 to 1) of all values does not exceed; 0 of nothing.
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        let wanted = ((self.count() as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for &(us, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return us;
            }
        }
        self.max_us()
    }

    /// How many values are at most each of `bounds_us` (ascending), in one pass.
    pub fn cumulative(&self, bounds_us: &[u64]) -> Vec<u64> {
        let mut rest = self.buckets.iter().peekable();
        let mut seen = 0;
        let below = bounds_us.iter().map(|bound| {
            while let Some((_, count)) = rest.next_if(|bucket| bucket.0 <= *bound) {
                seen += count;
            }
            seen
        });
        below.collect()
    }

    /// Adds what another shard, or another interval, counted.
    pub fn merge(&mut self, other: &Self) {
        if other.buckets.is_empty() {
            return;
        }
        let mine = std::mem::take(&mut self.buckets);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.buckets.reserve(mine.len().max(other.buckets.len()));
        let (mut left, mut right) = (mine.into_iter().peekable(), other.buckets.iter().copied().peekable());
        loop {
            let from_left = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) => a.0 <= b.0,
                (a, _) => a.is_some(),
            };
            let next = if from_left { left.next() } else { right.next() };
            let Some((us, count)) = next else { break };
            self.push(us, count);
        }
    }

    /// What was counted since `earlier`, an older snapshot of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut old = earlier.buckets.iter().peekable();
        let left = self.buckets.iter().map(|&(us, count)| {
            while old.next_if(|bucket| bucket.0 < us).is_some() {}
            let before = old.next_if(|bucket| bucket.0 == us).map_or(0, |bucket| bucket.1);
            (us, count.saturating_sub(before))
        });
        let buckets = left.filter(|bucket| bucket.1 > 0).collect();
        Self { buckets, sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// The same in `rows_per_octave` rows for each factor of two: for a heat-map, a hundred rows instead of thousands.
    pub fn coarse(&self, rows_per_octave: u32) -> Self {
        let rows = f64::from(rows_per_octave.max(1));
        let mut coarse = Self { buckets: Vec::new(), sum_us: self.sum_us };
        for &(us, count) in &self.buckets {
            let row = ((us.max(1) as f64).log2() * rows).ceil();
            coarse.push((row / rows).exp2().round() as u64, count);
        }
        coarse
    }

    /// `us` is at least the last bucket's.
    fn push(&mut self, us: u64, count: u64) {
        match self.buckets.last_mut() {
            Some(last) if last.0 == us => last.1 += count,
            _ => self.buckets.push((us, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(step: u64) -> Buckets {
        let all: Vec<(u64, u64)> = (1..=1000).map(|number| (number * step, 1)).collect();
        let sum = all.iter().map(|bucket| bucket.0).sum();
        Buckets::new(all, sum)
    }

    #[test]
    fn quantiles_of_a_ramp_are_its_places() {
        let ramp = ramp(1);
        let found = [0.0, 0.5, 0.99, 0.999, 1.0].map(|quantile| ramp.quantile_us(quantile));
        assert_eq!(found, [1, 500, 990, 999, 1000]);
        assert_eq!(ramp.mean_us(), 500.5);
        assert_eq!(ramp.cumulative(&[0, 10, 500, 5000]), [0, 10, 500, 1000]);
        assert_eq!(Buckets::default().quantile_us(0.5), 0);
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_since_undoes_it() {
        let (a, b) = (ramp(2), ramp(3));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b);
        ba.merge(&a);
        assert_eq!(ab, ba);
        assert_eq!((ab.count(), ab.max_us(), ab.sum_us()), (2000, 3000, a.sum_us() + b.sum_us()));
        assert_eq!(ab.since(&b), a);
        assert_eq!(ab.since(&ab), Buckets::default());
    }

    #[test]
    fn coarse_rows_keep_every_count_within_their_width() {
        let ramp = ramp(10);
        let coarse = ramp.coarse(4);
        assert_eq!(coarse.count(), 1000);
        assert!(coarse.iter().count() < 50);
        let (fine, rough) = (ramp.quantile_us(0.9) as f64, coarse.quantile_us(0.9) as f64);
        assert!(rough >= fine && rough <= fine * 1.2, "{fine} {rough}");
    }
}
