//! `scheduler backend wheel`, the default: what waits, by time, in a heap with an entry per message and time. An entry whose
//! envelopes have moved on is dropped when its time comes, so nothing is ever searched for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::scheduler::Scheduler;

/// Messages by the time at which one of their envelopes is due.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    last: Option<(u64, u64)>,
}

impl Scheduler for Wheel {
    fn fires(&self) -> bool {
        true
    }

    fn arm(&mut self, due_ms: u64, number: u64) {
        // Envelopes of one message are settled one after the other, mostly to the same time.
        if self.last == Some((due_ms, number)) {
            return;
        }
        self.last = Some((due_ms, number));
        self.heap.push(Reverse((due_ms, number)));
    }

    // In linear time.
    fn arm_all(&mut self, entries: Vec<(u64, u64)>) {
        self.last = None;
        if self.heap.is_empty() {
            self.heap = entries.into_iter().map(Reverse).collect();
        } else {
            self.heap.extend(entries.into_iter().map(Reverse));
        }
    }

    fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    fn fire(&mut self, now_ms: u64) -> Option<u64> {
        if self.next()? > now_ms {
            return None;
        }
        self.last = None;
        self.heap.pop().map(|Reverse((_, number))| number)
    }

    fn len(&self) -> usize {
        self.heap.len()
    }

    fn memory_bytes(&self) -> usize {
        self.heap.capacity() * size_of::<(u64, u64)>()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_nothing_before_its_time() {
        let mut due = Wheel::default();
        due.arm(30, 3);
        due.arm(10, 1);
        due.arm(10, 1);
        due.arm_all(vec![(20, 2)]);
        assert_eq!((due.len(), due.next(), due.fire(9)), (3, Some(10), None));
        let order: Vec<u64> = std::iter::from_fn(|| due.fire(25)).collect();
        assert_eq!((order, due.next()), (vec![1, 2], Some(30)));
        due.arm(10, 1);
        assert_eq!(due.fire(10), Some(1), "pushed again after it was taken");
    }
}
