//! Who of those that wait at a route is next: senders take turns, so that one with a million messages does not delay one
//! with a single message.
//!
//! Deficit round robin (Shreedhar and Varghese, "Efficient fair queuing using deficit round-robin", 1995). The unit is the
//! byte, and each message counts as some at least: a small one costs its round trips, a large one the time on the line. The
//! number of lines is bounded: with more senders than that, some share one (McKenney, "Stochastic fairness queueing", 1990).
//!
//! Before that, what is more urgent (RFC 6710) goes first: there are three classes of priorities, each with lines of its own.
//! None starves: of so many turns each class that waits has one.

use std::array;
use std::collections::VecDeque;

use crate::limits::{CLASS_TURNS, LINES_MAX, TURN_KIB, TURN_KIB_MAX};
use crate::pool::Pool;

/// What waits in a [`FairQueue`].
pub trait Waiting {
    /// Whose it is and how urgent, as [`sender_key`] says: what has the same number waits in the same line.
    fn sender(&self) -> u32;

    /// Bytes that it will move.
    fn bytes(&self) -> u64;
}

/// What waits, in classes of urgency, in each a line for each sender; each line in the order of its arrival.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// The most urgent first.
    classes: [Lines<T>; CLASSES],
    /// Which of [`CLASS_TURNS`] it is; what has no rival takes none.
    turn: usize,
    /// The class of what was taken out last.
    last: usize,
}

/// The lines of a class.
#[derive(Debug)]
struct Lines<T> {
    /// None is empty. The first has the turn.
    lines: VecDeque<Line<T>>,
    len: usize,
}

#[derive(Debug)]
struct Line<T> {
    sender: u32,
    /// KiB that it may still move in this turn.
    credit: u32,
    waiting: VecDeque<T>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { classes: array::from_fn(|_| Lines { lines: VecDeque::new(), len: 0 }), turn: 0, last: 0 }
    }
}

impl<T: Waiting> FairQueue<T> {
    /// Puts something behind what its sender has waiting of this class.
    pub fn push(&mut self, item: T) {
        self.classes[class_of(item.sender())].push(item);
    }

    /// Takes out what is next.
    pub fn pop(&mut self) -> Option<T> {
        let mut waiting = (0..CLASSES).filter(|class| self.classes[*class].len > 0);
        let first = waiting.next()?;
        self.last = first;
        if waiting.next().is_some() {
            self.turn = (self.turn + 1) % CLASS_TURNS;
            let whose = (0..CLASSES).find(|class| class * CLASS_TURNS / CLASSES == self.turn);
            self.last = whose.filter(|class| self.classes[*class].len > 0).unwrap_or(first);
        }
        self.classes[self.last].pop()
    }

    /// Takes out what stands behind that which [`FairQueue::pop`] has taken just now, if it is such: a part of the same, so that
    /// it costs nothing.
    pub fn pop_if(&mut self, is_part: impl FnOnce(&T) -> bool) -> Option<T> {
        self.classes[self.last].pop_if(is_part)
    }

    /// Takes out all that are such.
    pub fn take(&mut self, is_such: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        self.classes.iter_mut().for_each(|lines| lines.take(&is_such, &mut taken));
        taken
    }

    /// Takes out all.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(self).classes.into_iter().flat_map(|class| class.lines).flat_map(|line| line.waiting)
    }

    /// All that waits, line by line.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.classes.iter().flat_map(Lines::iter)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.classes.iter().map(|lines| lines.len).sum()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Waiting> Lines<T> {
    fn push(&mut self, item: T) {
        self.len += 1;
        let sender = item.sender();
        // The next number above, in a circle: beyond the bound a sender keeps to the line that it shares.
        let distance = |line: &Line<T>| line.sender.wrapping_sub(sender);
        let is_full = self.lines.len() >= LINES_MAX;
        match self.lines.iter_mut().min_by_key(|line| distance(line)) {
            Some(line) if is_full || line.sender == sender => line.waiting.push_back(item),
            _ => self.lines.push_back(Line { sender, credit: TURN_KIB, waiting: VecDeque::from([item]) }),
        }
    }

    fn pop(&mut self) -> Option<T> {
        loop {
            let is_alone = self.lines.len() == 1;
            let line = self.lines.front_mut()?;
            let cost = cost(line.waiting.front().expect("empty lines are taken out"));
            if line.credit < cost && !is_alone {
                line.credit += TURN_KIB;
                self.lines.rotate_left(1);
                continue;
            }
            line.credit = line.credit.saturating_sub(cost);
            return self.take_first();
        }
    }

    fn pop_if(&mut self, is_part: impl FnOnce(&T) -> bool) -> Option<T> {
        let next = self.lines.front()?.waiting.front()?;
        is_part(next).then(|| self.take_first()).flatten()
    }

    fn take_first(&mut self) -> Option<T> {
        let line = self.lines.front_mut()?;
        let item = line.waiting.pop_front();
        self.len -= usize::from(item.is_some());
        if line.waiting.is_empty() {
            // What is left of its credit is lost: it is for those who wait.
            self.lines.pop_front();
        }
        item
    }

    fn take(&mut self, is_such: impl Fn(&T) -> bool, taken: &mut Vec<T>) {
        if !self.iter().any(&is_such) {
            return;
        }
        for line in &mut self.lines {
            let (such, rest) = line.waiting.drain(..).partition::<Vec<_>, _>(&is_such);
            line.waiting = rest.into();
            self.len -= such.len();
            taken.extend(such);
        }
        self.lines.retain(|line| !line.waiting.is_empty());
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().flat_map(|line| &line.waiting)
    }
}

/// KiB that something counts as.
fn cost(item: &impl Waiting) -> u32 {
    (item.bytes() / 1024).clamp(u64::from(TURN_KIB), u64::from(TURN_KIB_MAX)) as u32
}

/// Classes of urgency. Few: each costs the lower ones turns.
const CLASSES: usize = 3;
/// Lowest bit of the class in a sender's number.
const CLASS_SHIFT: u32 = 30;

/// The class that a sender's number tells; 0 is the most urgent.
fn class_of(sender: u32) -> usize {
    ((sender >> CLASS_SHIFT) as usize).min(CLASSES - 1)
}

/// The number of a sender: that of the domain of its reverse-path, whatever the case of its letters, since lists give each
/// message a reverse-path of its own (VERP) and would have a line for each. Notifications, whose reverse-path is null, are one sender.
///
/// In its two highest bits is the class of the message's `priority` (RFC 6710, from -9 to 9; 0 is that of most mail): a sender's
/// urgent mail is as that of another sender, and does not wait behind his other mail.
pub fn sender_key(reverse_path: &str, priority: i8) -> u32 {
    let class: u32 = match priority {
        4.. => 0,
        0..=3 => 1,
        _ => 2,
    };
    let domain = reverse_path.rsplit_once('@').map_or(reverse_path, |(_, domain)| domain);
    // Two domains in one line are an annoyance for them, no error.
    let hash = Pool::key(domain) as u32;
    hash & ((1 << CLASS_SHIFT) - 1) | class << CLASS_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sender, KiB, which of its messages.
    #[derive(Debug, PartialEq, Eq)]
    struct Letter(u32, u64, usize);

    impl Waiting for Letter {
        fn sender(&self) -> u32 {
            self.0
        }

        fn bytes(&self) -> u64 {
            self.1 * 1024
        }
    }

    fn senders(queue: &mut FairQueue<Letter>, count: usize) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).take(count).map(|letter| letter.0).collect()
    }

    #[test]
    fn a_single_message_goes_before_the_second_of_a_million() {
        let mut queue = FairQueue::default();
        (0..1_000_000).for_each(|n| queue.push(Letter(7, 3, n)));
        queue.push(Letter(8, 3, 0));
        assert_eq!(senders(&mut queue, 4), [7, 8, 7, 7]);
        let rest: Vec<usize> = queue.drain().map(|letter| letter.2).collect();
        assert!(rest.iter().copied().eq(3..1_000_000), "each sender's in order");
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    fn large_messages_count_as_many_small_ones_up_to_a_bound() {
        let mut queue = FairQueue::default();
        for n in 0..400 {
            queue.push(Letter(1, 4 * u64::from(TURN_KIB), n));
            queue.push(Letter(2, 1, n));
            queue.push(Letter(3, 1 << 30, n));
        }
        let some = senders(&mut queue, 340);
        let of = |sender| some.iter().filter(|one| **one == sender).count();
        assert_eq!(some.len(), of(1) + of(2) + of(3));
        assert!((62..=66).contains(&of(1)) && (255..=262).contains(&of(2)), "{} {} {}", of(1), of(2), of(3));
        assert_eq!(of(3) as u32, 256 * TURN_KIB / TURN_KIB_MAX);
    }

    #[test]
    fn whoever_is_alone_is_not_in_debt_when_another_comes() {
        let mut queue = FairQueue::default();
        (0..5).for_each(|n| queue.push(Letter(1, u64::from(TURN_KIB_MAX), n)));
        assert_eq!(senders(&mut queue, 3), [1, 1, 1]);
        queue.push(Letter(2, 1, 0));
        queue.push(Letter(2, 1, 1));
        assert_eq!(senders(&mut queue, 9), [2, 2, 1, 1]);
    }

    #[test]
    fn more_senders_than_lines_share_them_and_nobody_is_forgotten() {
        let mut queue = FairQueue::default();
        let many = 3 * LINES_MAX;
        let number = |sender: usize| (sender as u32).wrapping_mul(0x9e37_79b9) >> 2;
        (0..10).for_each(|n| (0..many).for_each(|sender| queue.push(Letter(number(sender), 1, n))));
        assert_eq!((queue.classes[0].lines.len(), queue.len()), (LINES_MAX, 10 * many));
        let first: std::collections::BTreeSet<u32> = senders(&mut queue, LINES_MAX).into_iter().collect();
        assert_eq!(first.len(), LINES_MAX, "one of each line");
        assert_eq!(senders(&mut queue, 10 * many).len(), 10 * many - LINES_MAX);
    }

    #[test]
    fn parts_of_one_message_go_together_and_what_is_taken_out_does_not_come() {
        let mut queue = FairQueue::default();
        for n in [0, 0, 0, 1] {
            queue.push(Letter(1, 1, n));
            queue.push(Letter(2, 1, 10 + n));
        }
        let Some(Letter(1, _, first)) = queue.pop() else { panic!("the first line") };
        let parts = std::iter::from_fn(|| queue.pop_if(|next| next.2 == first)).count();
        assert_eq!((parts, queue.len()), (2, 5));
        assert_eq!(queue.take(|letter| letter.2 == 1 || letter.2 == 11).len(), 2);
        assert_eq!((senders(&mut queue, 9), queue.len()), (vec![2, 2, 2], 0));
        assert!(queue.pop_if(|_| true).is_none());
    }

    #[test]
    fn senders_are_domains() {
        assert_eq!(sender_key("list-a=b@Example.ORG", 0), sender_key("list-c=d@example.org", 3));
        assert_ne!(sender_key("a@example.org", 0), sender_key("a@example.net", 0));
        assert_eq!(sender_key("", 0), sender_key("", 0));
    }

    #[test]
    fn the_class_of_a_message_is_that_of_its_priority() {
        for (priorities, class) in [(-9..=-1, 2), (0..=3, 1), (4..=9, 0)] {
            for priority in priorities {
                assert_eq!(class_of(sender_key("a@example.org", priority)), class, "{priority}");
            }
        }
        assert_eq!(class_of(u32::MAX), CLASSES - 1, "no number is without a class");
    }

    /// A letter of the domain `a` or another, of this priority.
    fn letter(domain: &str, priority: i8, number: usize) -> Letter {
        Letter(sender_key(domain, priority), 1, number)
    }

    fn classes(queue: &mut FairQueue<Letter>, count: usize) -> Vec<usize> {
        senders(queue, count).into_iter().map(class_of).collect()
    }

    #[test]
    fn what_is_more_urgent_goes_first_whoever_sends_it() {
        let mut queue = FairQueue::default();
        (0..100_000).for_each(|n| queue.push(letter("a", -4, n)));
        (0..3).for_each(|n| queue.push(letter("a", 0, n)));
        queue.push(letter("a", 4, 0));
        queue.push(letter("b", 9, 0));
        assert_eq!(classes(&mut queue, 6), [0, 0, 1, 1, 1, 2]);
        let rest: Vec<usize> = queue.drain().map(|letter| letter.2).collect();
        assert!(rest.iter().copied().eq(1..100_000), "in order");
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    fn no_class_starves_and_each_has_its_share_of_the_turns() {
        let mut queue = FairQueue::default();
        let fill = |queue: &mut FairQueue<Letter>, priority| {
            (0..100 * CLASS_TURNS).for_each(|n| queue.push(letter("a", priority, n)));
        };
        [9, 0, -9].into_iter().for_each(|priority| fill(&mut queue, priority));
        let turns = classes(&mut queue, 10 * CLASS_TURNS);
        for round in turns.chunks(CLASS_TURNS) {
            let of = |class| round.iter().filter(|one| **one == class).count();
            assert_eq!([of(0), of(1), of(2)], [CLASS_TURNS - 2, 1, 1]);
        }
        // The turn of a class of which nothing waits is that of the most urgent.
        let mut queue = FairQueue::default();
        [0, -9].into_iter().for_each(|priority| fill(&mut queue, priority));
        let turns = classes(&mut queue, 10 * CLASS_TURNS);
        assert!(turns.chunks(CLASS_TURNS).all(|round| round.iter().filter(|one| **one == 2).count() == 1));
    }

    #[test]
    fn lines_are_bounded_in_each_class_and_all_that_waits_is_seen() {
        let mut queue = FairQueue::default();
        for number in 0..3 * LINES_MAX {
            [9, 0, -9].into_iter().for_each(|priority| queue.push(letter(&format!("d{number}"), priority, number)));
        }
        assert_eq!(queue.classes.each_ref().map(|class| class.lines.len()), [LINES_MAX; CLASSES]);
        assert_eq!((queue.len(), queue.iter().count()), (9 * LINES_MAX, 9 * LINES_MAX));
        assert_eq!(queue.take(|letter| letter.2 == 7).len(), 3);
        assert_eq!((queue.len(), queue.drain().count()), (9 * LINES_MAX - 3, 9 * LINES_MAX - 3));
    }

    #[test]
    fn parts_of_an_urgent_message_go_together() {
        let mut queue = FairQueue::default();
        for n in [0, 0, 1] {
            queue.push(letter("a", 0, n));
            queue.push(letter("a", 5, n));
        }
        let first = queue.pop().expect("one waits");
        assert_eq!((class_of(first.0), queue.pop_if(|next| next.2 == 0)), (0, Some(letter("a", 5, 0))));
        assert_eq!(queue.pop_if(|next| next.2 == 0), None);
        assert_eq!(queue.pop(), Some(letter("a", 5, 1)));
    }
}
