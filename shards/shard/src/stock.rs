//! What a shard has let out for each route, and what waits at home because the route has its share.
//!
//! Messages in the air cost memory, which is bounded for all routes together. A slow route would take all of it and hold
//! up the others (promise 6). So each may have at most a part of what is still free, as switches share their buffers
//! among ports (Choudhury and Hahne, "Dynamic queue length thresholds", 1998): a single slow route gets a third of all, with
//! many each gets less, and something is always left for the next one. The rest of a route's messages waits here as a few
//! numbers each, is in flight as far as the queue is concerned, and is read back once: when the route has room.
//!
//! Within a route senders take turns. The one whose mail fills the share finds the end of it before the others do: who has
//! next to nothing out may go beyond, so that a single message does not wait until half of a stranger's million has landed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};

use ringpost_queue::MessageId;
use ringpost_routes::{FairQueue, Site, Waiting};
use slab::Slab;

use crate::limits;

/// Shares of one route against the free ones: 2 makes the share half of what is free.
const FREE_PER_SHARE: usize = 2;

/// All routes that this shard has something out for.
#[derive(Debug)]
pub struct Stock {
    accounts: RefCell<Slab<Account>>,
    by_site: RefCell<HashMap<Site, usize>>,
    /// Accounts that may take up some of what waits.
    turn: RefCell<VecDeque<usize>>,
    /// Envelopes that found no room at all, whatever their route.
    lobby: RefCell<FairQueue<Place>>,
    bounds: Cell<Room>,
}

/// Every envelope that waits here: for a route with so many messages out and envelopes waiting, or for room at all.
pub(crate) type Parked = HashMap<(MessageId, u16), Option<(Site, usize, usize)>>;

/// An envelope that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of which message.
    pub id: MessageId,
    /// Of the message, and how urgent it is, as [`ringpost_routes::sender_key`] says.
    pub sender: u32,
    /// Its place in the message.
    pub index: u16,
    kib: u16,
}

const _: () = assert!(size_of::<Place>() == 16);

impl Place {
    /// An envelope of a message of so many bytes.
    pub fn new(id: MessageId, index: u16, sender: u32, bytes: u64) -> Self {
        Self { id, sender, index, kib: u16::try_from(bytes / 1024).unwrap_or(u16::MAX) }
    }
}

impl Waiting for Place {
    fn sender(&self) -> u32 {
        self.sender
    }

    fn bytes(&self) -> u64 {
        u64::from(self.kib) * 1024
    }
}

/// Messages and bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// How many.
    pub messages: usize,
    /// Bytes of their bodies that are in memory.
    pub bytes: usize,
}

/// What a ticket carries with it, to be given back with its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    account: u32,
    bytes: u32,
    /// As in [`Place`].
    pub(crate) sender: u32,
}

#[derive(Debug)]
struct Account {
    site: Site,
    out: Room,
    /// Messages out of each sender that has some; his urgent ones are another's.
    senders: BTreeMap<u32, u32>,
    waiting: FairQueue<Place>,
    in_turn: bool,
}

impl Stock {
    /// Nothing out; all routes together may have `bounds`.
    pub fn new(bounds: Room) -> Self {
        Self {
            accounts: RefCell::default(),
            by_site: RefCell::default(),
            turn: RefCell::default(),
            lobby: RefCell::default(),
            bounds: Cell::new(bounds),
        }
    }

    /// What all routes together may have.
    pub(crate) fn bounds(&self) -> Room {
        self.bounds.get()
    }

    /// All routes together may have so many messages from now on; what is out goes on.
    pub(crate) fn allow(&self, messages: usize) {
        self.bounds.set(Room { messages, ..self.bounds.get() });
    }

    /// What each route may have out while this much is in use.
    fn share(&self, used: Room) -> Room {
        let part = |bound: usize, used: usize| bound.saturating_sub(used) / FREE_PER_SHARE;
        let bounds = self.bounds.get();
        Room { messages: part(bounds.messages, used.messages), bytes: part(bounds.bytes, used.bytes) }
    }

    /// Room for a ticket of this sender with a body of so many bytes, while `used` is in the air. A route with nothing out
    /// always has some. `None`: to be given to [`Stock::wait`].
    pub fn take(&self, site: &Site, sender: u32, bytes: usize, used: Room) -> Option<Taken> {
        let mut by_site = self.by_site.borrow_mut();
        let mut accounts = self.accounts.borrow_mut();
        let key = match by_site.get(site) {
            Some(key) => *key,
            None => {
                let key = accounts.insert(Account::new(site.clone()));
                by_site.insert(site.clone(), key);
                key
            }
        };
        let (account, mut share) = (&mut accounts[key], self.share(used));
        let of_sender = account.senders.get(&sender).copied().unwrap_or(0);
        if of_sender < limits::SENDER_SURE {
            share.messages += share.messages / limits::SHARE_PER_RESERVE;
            share.bytes += share.bytes / limits::SHARE_PER_RESERVE;
        }
        if account.out.messages > 0
            && (account.out.messages >= share.messages || account.out.bytes + bytes > share.bytes)
        {
            return None;
        }
        account.out.messages += 1;
        account.out.bytes += bytes;
        account.senders.insert(sender, of_sender + 1);
        Some(Taken { account: key as u32, bytes: bytes as u32, sender })
    }

    /// An envelope stays at home until its route has room: something of it is out, as [`Stock::take`] has refused it.
    pub fn wait(&self, site: &Site, place: Place) {
        let key = self.by_site.borrow()[site];
        self.accounts.borrow_mut()[key].waiting.push(place);
    }

    /// An envelope for which there is no room at all.
    pub(crate) fn wait_for_room(&self, place: Place) {
        self.lobby.borrow_mut().push(place);
    }

    /// The route of a ticket that is out.
    pub(crate) fn site(&self, taken: Taken) -> Option<Site> {
        self.accounts.borrow().get(taken.account as usize).map(|account| account.site.clone())
    }

    /// A ticket has its results. True: there is room for some that wait.
    pub fn give_back(&self, taken: Taken, used: Room) -> bool {
        let mut accounts = self.accounts.borrow_mut();
        let key = taken.account as usize;
        let account = &mut accounts[key];
        account.land(taken);
        if account.waiting.is_empty() {
            if account.out.messages == 0 {
                let account = accounts.remove(key);
                self.by_site.borrow_mut().remove(&account.site);
            }
            return false;
        }
        if account.in_turn || !account.is_low(self.share(used)) {
            return false;
        }
        account.in_turn = true;
        self.turn.borrow_mut().push_back(key);
        true
    }

    /// Envelopes that waited, at most so many: those that found no room at all, then those of a route that has room now;
    /// routes take turns, and so do the senders in each. The envelopes of a message come together, since they share a
    /// transaction. Only those that `still` waits for: others were taken out of the queue meanwhile.
    pub fn next(&self, max: usize, used: Room, still: impl Fn(MessageId, u16) -> bool) -> Vec<(MessageId, Vec<u16>)> {
        let mut found: Vec<(MessageId, Vec<u16>)> = Vec::new();
        let mut take = |Place { id, index, .. }: Place| match found.last_mut() {
            _ if !still(id, index) => {}
            Some((last, indexes)) if *last == id => indexes.push(index),
            _ => found.push((id, vec![index])),
        };
        let max = max - take_some(&mut self.lobby.borrow_mut(), max, &mut take);
        let share = self.share(used);
        let mut accounts = self.accounts.borrow_mut();
        let mut turn = self.turn.borrow_mut();
        while max > 0
            && let Some(key) = turn.pop_front()
        {
            let account = &mut accounts[key];
            if !account.is_low(share) {
                account.in_turn = false;
                continue;
            }
            let count = account.room_in(share).min(max).min(account.waiting.len());
            take_some(&mut account.waiting, count, &mut take);
            account.in_turn = !account.waiting.is_empty();
            if account.in_turn {
                turn.push_back(key);
            } else if account.out.messages == 0 {
                let account = accounts.remove(key);
                self.by_site.borrow_mut().remove(&account.site);
            }
            break;
        }
        found
    }

    /// All that waits: the configuration has changed, and it may have another way to go.
    pub(crate) fn drain(&self) -> Vec<(MessageId, u16)> {
        let mut accounts = self.accounts.borrow_mut();
        let of_routes = accounts.iter_mut().flat_map(|(_, account)| account.waiting.drain());
        of_routes.chain(self.lobby.borrow_mut().drain()).map(|place| (place.id, place.index)).collect()
    }

    /// All that waits, by envelope; to be asked for by people only.
    pub(crate) fn parked(&self) -> Parked {
        let mut all = Parked::new();
        for (_, account) in self.accounts.borrow().iter() {
            let standing = (account.site.clone(), account.out.messages, account.waiting.len());
            all.extend(account.waiting.iter().map(|place| ((place.id, place.index), Some(standing.clone()))));
        }
        all.extend(self.lobby.borrow().iter().map(|place| ((place.id, place.index), None)));
        all
    }

    /// How many wait for each route of which some do.
    pub(crate) fn waiting(&self) -> Vec<(Site, usize)> {
        let accounts = self.accounts.borrow();
        let waiting = accounts.iter().filter(|(_, account)| !account.waiting.is_empty());
        waiting.map(|(_, account)| (account.site.clone(), account.waiting.len())).collect()
    }

    /// How many wait; some of them may have been taken out of the queue.
    pub(crate) fn len(&self) -> usize {
        let accounts = self.accounts.borrow();
        accounts.iter().map(|(_, account)| account.waiting.len()).sum::<usize>() + self.lobby.borrow().len()
    }

    /// A route of which something waits though nothing is out whose return would wake it, nor has it a turn: never, unless
    /// this file is wrong. It gets a turn.
    pub(crate) fn forgotten(&self) -> Option<Site> {
        let mut accounts = self.accounts.borrow_mut();
        let (key, account) = accounts
            .iter_mut()
            .find(|(_, account)| !account.waiting.is_empty() && account.out.messages == 0 && !account.in_turn)?;
        account.in_turn = true;
        self.turn.borrow_mut().push_back(key);
        Some(account.site.clone())
    }
}

/// Takes some of what waits; returns how many.
fn take_some(waiting: &mut FairQueue<Place>, max: usize, take: &mut impl FnMut(Place)) -> usize {
    let mut last: Option<MessageId> = None;
    let mut count = 0;
    while count < max {
        let part = last.and_then(|last| waiting.pop_if(|next| next.id == last));
        let Some(place) = part.or_else(|| waiting.pop()) else { break };
        last = Some(place.id);
        count += 1;
        take(place);
    }
    count
}

impl Account {
    fn new(site: Site) -> Self {
        let (out, senders, waiting) = (Room::default(), BTreeMap::new(), FairQueue::default());
        Self { site, out, senders, waiting, in_turn: false }
    }

    /// A ticket has its results.
    fn land(&mut self, taken: Taken) {
        self.out.messages -= 1;
        self.out.bytes -= taken.bytes as usize;
        let of_sender = self.senders.get_mut(&taken.sender).expect("its ticket was out");
        *of_sender -= 1;
        if *of_sender == 0 {
            self.senders.remove(&taken.sender);
        }
    }

    /// Whether it has less than half of its share: then a good part of it is read back together.
    fn is_low(&self, share: Room) -> bool {
        self.out.messages == 0 || (self.out.messages <= share.messages / 2 && self.out.bytes <= share.bytes / 2)
    }

    /// Messages like those that are out which the share has room for.
    fn room_in(&self, share: Room) -> usize {
        let mean = (self.out.bytes / self.out.messages.max(1)).max(1);
        let by_bytes = share.bytes.saturating_sub(self.out.bytes) / mean;
        share.messages.saturating_sub(self.out.messages).min(by_bytes).max(1)
    }
}

#[cfg(test)]
mod tests {
    use ringpost_routes::Helo;

    use super::*;

    const BOUNDS: Room = Room { messages: 120, bytes: 120_000 };

    fn site(name: &str) -> Site {
        let helo = Helo::Name("us".into());
        Site { name: name.into(), ..Site::new(&[], &[], helo) }
    }

    /// All of one sender.
    fn place(number: u64, index: u16) -> Place {
        Place::new(MessageId(number), index, 0, 1000)
    }

    /// Nothing was taken out of the queue.
    fn all(_: MessageId, _: u16) -> bool {
        true
    }

    /// Takes for a site until that has its share; what is used grows with it.
    fn fill(stock: &Stock, name: &str, used: &mut Room) -> Vec<Taken> {
        let mut all = Vec::new();
        while let Some(taken) = stock.take(&site(name), 0, 1000, *used) {
            all.push(taken);
            *used = Room { messages: used.messages + 1, bytes: used.bytes + 1000 };
        }
        all
    }

    #[test]
    fn promise_6_slow_routes_leave_room_for_the_next_one() {
        let stock = Stock::new(BOUNDS);
        let mut used = Room::default();
        let shares: Vec<usize> = (0..8).map(|n| fill(&stock, &n.to_string(), &mut used).len()).collect();
        assert_eq!(shares[0], 40, "a third, if it is alone");
        assert!(shares.windows(2).all(|pair| pair[1] <= pair[0] && pair[1] > 0), "{shares:?}");
        assert!(used.messages < BOUNDS.messages, "{shares:?}");
        // Bytes are shared in the same way.
        let mut used = Room { messages: 0, bytes: 0 };
        let stock = Stock::new(Room { messages: 1_000_000, ..BOUNDS });
        assert_eq!(fill(&stock, "a", &mut used).len(), 40);
        assert!(stock.take(&site("b"), 0, 1 << 20, used).is_some(), "however large, the only one of a route goes");
        assert!(stock.take(&site("b"), 0, 1, used).is_none());
    }

    #[test]
    fn what_waits_comes_when_half_of_the_share_is_free_and_in_order() {
        let stock = Stock::new(BOUNDS);
        let mut used = Room::default();
        let out = fill(&stock, "a", &mut used);
        (0..100).for_each(|n| stock.wait(&site("a"), place(n / 2, (n % 2) as u16)));
        assert_eq!(stock.next(16, used, all), [], "it has its share");
        let mut woken = 0;
        for taken in &out[..30] {
            used = Room { messages: used.messages - 1, bytes: used.bytes - 1000 };
            woken += usize::from(stock.give_back(*taken, used));
        }
        assert_eq!(woken, 1, "once");
        let some = stock.next(16, used, all);
        let expected: Vec<(MessageId, Vec<u16>)> = (0..8).map(|n| (MessageId(n), vec![0, 1])).collect();
        assert_eq!(some, expected);
        let _ = fill(&stock, "a", &mut used);
        assert_eq!(stock.next(16, used, all), [], "it has its share again");
        assert_eq!(stock.drain().len(), 84);
    }

    #[test]
    fn a_sender_with_little_out_finds_room_where_another_has_all_of_the_share() {
        let stock = Stock::new(BOUNDS);
        let mut used = Room::default();
        let full = fill(&stock, "a", &mut used).len();
        assert!(stock.take(&site("a"), 0, 1000, used).is_none());
        // As many strangers as come find some, up to what is kept for them.
        let mut strangers = Vec::new();
        while let Some(taken) = stock.take(&site("a"), 1 + strangers.len() as u32, 1000, used) {
            strangers.push(taken);
            used = Room { messages: used.messages + 1, bytes: used.bytes + 1000 };
        }
        assert!((4..=full / 4).contains(&strangers.len()), "{} beyond {full}", strangers.len());
        let small = strangers[0];
        stock.give_back(small, used);
        assert!(stock.take(&site("a"), small.sender, 1000, used).is_some(), "its place is free again");
    }

    #[test]
    fn senders_take_turns_and_the_envelopes_of_a_message_stay_together() {
        let stock = Stock::new(BOUNDS);
        let taken = stock.take(&site("a"), 0, 10, Room::default()).expect("room");
        for n in 0..20 {
            stock.wait(&site("a"), place(n / 2, (n % 2) as u16));
        }
        stock.wait(&site("a"), Place::new(MessageId(100), 0, 1, 10));
        stock.wait(&site("a"), Place::new(MessageId(100), 1, 1, 10));
        assert!(stock.give_back(taken, Room::default()));
        let some = stock.next(8, Room::default(), all);
        let ids: Vec<(u64, usize)> = some.iter().map(|(id, indexes)| (id.0, indexes.len())).collect();
        assert_eq!(ids, [(0, 2), (100, 2), (1, 2), (2, 2)]);
    }

    #[test]
    fn a_route_with_nothing_out_and_nothing_waiting_is_forgotten() {
        let stock = Stock::new(BOUNDS);
        let taken = stock.take(&site("a"), 0, 10, Room::default()).expect("room");
        assert!(!stock.give_back(taken, Room::default()));
        assert!(stock.by_site.borrow().is_empty() && stock.accounts.borrow().is_empty());
        // The last that waited is taken while nothing is out.
        let taken = stock.take(&site("a"), 0, 10, Room::default()).expect("room");
        stock.wait(&site("a"), place(1, 0));
        assert!(stock.give_back(taken, Room::default()));
        assert_eq!(stock.next(10, Room::default(), all), [(MessageId(1), vec![0])]);
        assert!(stock.by_site.borrow().is_empty() && stock.accounts.borrow().is_empty());
    }

    #[test]
    fn what_found_no_room_comes_first_and_what_has_left_the_queue_does_not_come() {
        let stock = Stock::new(BOUNDS);
        (0..6).for_each(|n| stock.wait_for_room(place(n, 0)));
        assert_eq!((stock.len(), stock.parked().len()), (6, 6));
        let even = stock.next(4, Room::default(), |id, _| id.0 % 2 == 0);
        assert_eq!(even, [(MessageId(0), vec![0]), (MessageId(2), vec![0])]);
        assert_eq!((stock.drain().len(), stock.len()), (2, 0));
    }

    #[test]
    fn a_route_that_was_forgotten_is_found_and_gets_a_turn() {
        let stock = Stock::new(BOUNDS);
        let taken = stock.take(&site("a"), 0, 10, Room::default()).expect("room");
        stock.wait(&site("a"), place(1, 0));
        assert_eq!(stock.forgotten(), None, "the return of what is out wakes it");
        // What must never happen: its ticket is gone, and nobody was told.
        stock.accounts.borrow_mut()[taken.account as usize].out = Room::default();
        assert_eq!(stock.forgotten(), Some(site("a")));
        assert_eq!(stock.forgotten(), None);
        assert_eq!(stock.next(10, Room::default(), all), [(MessageId(1), vec![0])]);
    }
}
