//! Work that pauses in the middle of a call, on the thread that goes on with it: a library that can only wait for an answer is
//! called, left where it would wait, and gone on with when there is one. Each has a stack of its own.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Bytes of a stack, of which only those that are used take memory. A handshake uses some 20 KiB.
const STACK_BYTES: usize = 256 * 1024;

/// Where a fiber's way back is, while it runs or pauses.
type Place = Cell<*const Yielder<(), ()>>;

thread_local! {
    /// The fiber that runs on this thread.
    static RUNNING: Cell<*const Place> = const { Cell::new(ptr::null()) };
}

/// A stack, to be used again.
pub struct Stack(DefaultStack);

impl Stack {
    /// # Errors
    /// The memory is not to be had.
    pub fn new() -> io::Result<Self> {
        DefaultStack::new(STACK_BYTES).map(Self)
    }
}

/// Work that may [`pause`]. One that is dropped while it pauses gives up what it has by unwinding, which a program that aborts on
/// panics cannot: there each has to be brought to its end.
pub struct Fiber<R: 'static> {
    /// `None`: it is being dropped, or its stack was taken.
    coroutine: Option<Coroutine<(), (), R>>,
    place: Rc<Place>,
}

impl<R: 'static> Fiber<R> {
    /// Nothing of it is done yet.
    pub fn new(stack: Stack, work: impl FnOnce() -> R + 'static) -> Self {
        let place = Rc::new(Place::new(ptr::null()));
        let own = place.clone();
        let coroutine = Coroutine::with_stack(stack.0, move |yielder, ()| {
            own.set(yielder);
            let _left = Leave(&own);
            work()
        });
        Self { coroutine: Some(coroutine), place }
    }

    /// Runs it until it has ended, and gives what came of it, or until it pauses. Not to be called after its end. A panic in it
    /// goes on here.
    pub fn go_on(&mut self) -> Option<R> {
        let _back = Back(RUNNING.replace(Rc::as_ptr(&self.place)));
        match self.coroutine.as_mut()?.resume(()) {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(result) => Some(result),
        }
    }

    /// Its stack, after its end.
    pub fn into_stack(mut self) -> Option<Stack> {
        let ended = self.coroutine.take_if(|coroutine| coroutine.done())?;
        Some(Stack(ended.into_stack()))
    }
}

impl<R> Drop for Fiber<R> {
    fn drop(&mut self) {
        // What is taken back on its stack pauses nothing: the one that runs is another.
        let _back = Back(RUNNING.replace(ptr::null()));
        self.coroutine = None;
    }
}

/// Leaves the fiber that calls this, until somebody goes on with it. `false`, at once: this is no fiber.
pub fn pause() -> bool {
    let running = RUNNING.get();
    if running.is_null() {
        return false;
    }
    // SAFETY: `Fiber::go_on` set it on this thread and has not returned, or it would have set it back; it has borrowed the
    // fiber, which owns the place.
    let yielder = unsafe { (*running).get() };
    // SAFETY: the fiber's function set it to what it was given, and takes it back before it returns; that function is further
    // down on this very stack, since `running` is the fiber that was gone on with last.
    unsafe { (*yielder).suspend(()) };
    true
}

/// The fiber's function ends, and with it the way back.
struct Leave<'p>(&'p Place);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.set(ptr::null());
    }
}

/// The fiber that ran before runs again.
struct Back(*const Place);

impl Drop for Back {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pause_and_go_on_in_any_order() {
        let heard = Rc::new(Cell::new(0));
        let mut fibers: Vec<_> = (1..=3)
            .map(|number| {
                let heard = heard.clone();
                Fiber::new(Stack::new().unwrap(), move || {
                    let before = number * 10;
                    assert!(pause());
                    before + heard.get()
                })
            })
            .collect();
        assert!(fibers.iter_mut().all(|fiber| fiber.go_on().is_none()));
        heard.set(7);
        let ends: Vec<_> = fibers.iter_mut().rev().map(|fiber| fiber.go_on().unwrap()).collect();
        assert_eq!(ends, [37, 27, 17]);
        let stack = fibers.pop().unwrap().into_stack().unwrap();
        assert_eq!(Fiber::new(stack, || 5).go_on(), Some(5));
    }

    #[test]
    fn one_within_another_comes_back_to_it() {
        let mut outer = Fiber::new(Stack::new().unwrap(), || {
            let mut inner = Fiber::new(Stack::new().unwrap(), pause);
            assert!(inner.go_on().is_none());
            assert!(pause(), "the outer one again");
            inner.go_on().unwrap()
        });
        assert!(outer.go_on().is_none());
        assert_eq!(outer.go_on(), Some(true));
    }

    #[test]
    fn elsewhere_nothing_pauses() {
        assert!(!pause());
        let mut broken = Fiber::new(Stack::new().unwrap(), || panic!("broken"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| broken.go_on()));
        assert!(caught.is_err());
        assert!(!pause());
    }

    #[test]
    fn one_that_is_given_up_takes_back_what_it_had() {
        let kept = Rc::new(());
        struct Pauses(Rc<()>);
        impl Drop for Pauses {
            fn drop(&mut self) {
                assert!(!pause() && Rc::strong_count(&self.0) == 2);
            }
        }
        let own = Pauses(kept.clone());
        let mut outer = Fiber::new(Stack::new().unwrap(), move || {
            let mut inner = Fiber::new(Stack::new().unwrap(), move || {
                let _own = own;
                pause()
            });
            assert!(inner.go_on().is_none());
            drop(inner);
        });
        assert_eq!(outer.go_on(), Some(()));
        assert_eq!(Rc::strong_count(&kept), 1);
    }
}
