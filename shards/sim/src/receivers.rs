//! Receiving servers: they check what arrives, and misbehave as receivers do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bumpalo::Bump;
use ringpost_io::{Class, Listener, Runtime, Stream};
use ringpost_smtp::server::{Session, Step};
use ringpost_smtp::{Policy, Reply, Transaction};

use crate::clients::text;
use crate::promises::{self, Ledger};
use crate::{engine, limits};

/// How badly receivers behave: one of so many, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) refuse_recipient_one_in: u64,
    pub(crate) defer_recipient_one_in: u64,
    pub(crate) defer_message_one_in: u64,
    pub(crate) hang_up_one_in: u64,
    /// It has too much, and says so in one of the ways of `engine::config`.
    pub(crate) press_one_in: u64,
    /// It says nothing more, and keeps the connection.
    pub(crate) silent_one_in: u64,
}

/// What all receivers share.
pub(crate) struct Receivers {
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    pub(crate) manners: Cell<Manners>,
}

/// Serves one listener for ever.
pub(crate) async fn serve<R: Runtime>(runtime: R, listener: R::Listener, shared: Rc<Receivers>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            runtime.sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (task_runtime, shared) = (runtime.clone(), shared.clone());
        runtime.spawn(Class::Session, async move {
            // How a session ended is in the ledger.
            let _ = session(&task_runtime, stream, &shared).await;
        });
    }
}

struct Gone;

struct Receiver<R: Runtime> {
    runtime: R,
    stream: R::Stream,
    session: Session,
    input: Vec<u8>,
    used: usize,
    out: Vec<u8>,
    /// Deliveries whose 250 has been said; the peer's next word shows that it was heard.
    unheard: Vec<(u64, String, usize)>,
}

async fn session<R: Runtime>(runtime: &R, stream: R::Stream, shared: &Receivers) -> Result<(), Gone> {
    let policy = Policy::new("mx.sim");
    let session = Session::new(Arc::new(policy), runtime.now());
    let mut receiver =
        Receiver { runtime: runtime.clone(), stream, session, input: vec![], used: 0, out: vec![], unheard: vec![] };
    receiver.session.greet(&mut receiver.out);
    let mut arena = Bump::new();
    loop {
        transaction(&mut receiver, shared, &arena).await?;
        arena.reset();
    }
}

async fn transaction<R: Runtime>(receiver: &mut Receiver<R>, shared: &Receivers, arena: &Bump) -> Result<(), Gone> {
    let runtime = receiver.runtime.clone();
    let mut tx = Transaction::new(arena);
    let mut body = Vec::new();
    let one_in = |chance: u64| chance > 0 && runtime.random_u64().is_multiple_of(chance);
    loop {
        let manners = shared.manners.get();
        let Receiver { session, input, used, out, .. } = receiver;
        let (consumed, step) = session.step(runtime.now(), &input[*used..], &mut tx, out);
        *used += consumed;
        match step {
            Step::NeedInput => {
                receiver.exchange(shared).await?;
                if one_in(manners.hang_up_one_in) {
                    return Err(Gone);
                }
                if one_in(manners.silent_one_in) {
                    runtime.sleep(limits::SILENT).await;
                    return Err(Gone);
                }
            }
            Step::Flush => receiver.flush().await?,
            Step::Mail if one_in(manners.press_one_in) => {
                let replies = [
                    (451, "4.7.28", "unusual rate of mail"),
                    (450, engine::SUSPENDS, "come back later"),
                    (450, engine::THROTTLES, "slow down"),
                    (421, "4.7.0", "too many connections"),
                ];
                let (code, status, text) = replies[(runtime.random_u64() % replies.len() as u64) as usize];
                session.on_mail(Err(Reply::new(code, status, text)), out);
            }
            Step::Mail => session.on_mail(Ok(()), out),
            Step::Recipient(path) => {
                let verdict = if one_in(manners.refuse_recipient_one_in) {
                    shared.ledger.borrow_mut().refused(path, runtime.now());
                    Err(Reply::new(550, "5.1.1", "no such user"))
                } else if one_in(manners.defer_recipient_one_in) {
                    Err(Reply::new(450, "4.2.0", "greylisted"))
                } else {
                    Ok(())
                };
                session.on_recipient(verdict, &mut tx, out);
            }
            // Nothing is encrypted here, and nobody logs in, and so nothing of the kind is offered.
            Step::Auth | Step::StartTls | Step::Injected => return Err(Gone),
            Step::Data => session.on_data(Ok(()), out),
            Step::Body(piece) => body.extend_from_slice(piece),
            Step::Commit => {
                if one_in(manners.defer_message_one_in) {
                    session.on_commit(Err(Reply::new(451, "4.3.0", "try again")), out);
                } else {
                    session.on_commit(Ok("sim".to_owned()), out);
                    receiver.unheard.extend(note(shared, &runtime, &tx, &body));
                }
                return Ok(());
            }
            Step::Reset => return Ok(()),
            Step::Close => {
                receiver.flush().await?;
                return Err(Gone);
            }
        }
    }
}

/// Writes an arrival into the ledger: a numbered message, or a bounce.
fn note<R: Runtime>(shared: &Receivers, runtime: &R, tx: &Transaction<'_>, body: &[u8]) -> Vec<(u64, String, usize)> {
    let mut ledger = shared.ledger.borrow_mut();
    let lossy = String::from_utf8_lossy(body);
    if tx.reverse_path().is_empty() {
        // A notice of delay promises nothing: the message must still arrive, or be given up.
        if lossy.contains("\r\nAction: delayed\r\n") {
            return Vec::new();
        }
        for line in lossy.lines().filter_map(|line| line.strip_prefix("Final-Recipient: ")) {
            ledger.bounced(line.rsplit(';').next().unwrap_or("").trim());
        }
        return Vec::new();
    }
    let Some(number) = promises::number_in(&lossy) else {
        ledger.invented(format!("a message without number from <{}>", tx.reverse_path()));
        return Vec::new();
    };
    if !body.ends_with(&text(number)) {
        ledger.changed(number);
    }
    let arrived = tx.recipients().iter().filter_map(|recipient| {
        let place = ledger.arrived(number, recipient, runtime.now(), runtime.unix_ms())?;
        Some((number, (*recipient).to_owned(), place))
    });
    arrived.collect()
}

impl<R: Runtime> Receiver<R> {
    async fn flush(&mut self) -> Result<(), Gone> {
        let out = std::mem::take(&mut self.out);
        if out.is_empty() {
            return Ok(());
        }
        let written = self.runtime.timeout(limits::CLIENT_PATIENCE, self.stream.write_all(&out)).await;
        written.and_then(Result::ok).ok_or(Gone)
    }

    async fn exchange(&mut self, shared: &Receivers) -> Result<(), Gone> {
        self.flush().await?;
        self.input.drain(..self.used);
        self.used = 0;
        let read = self.runtime.timeout(limits::CLIENT_PATIENCE, self.stream.read(&mut self.input, 16 << 10)).await;
        match read {
            Some(Ok(count)) if count > 0 => {
                let mut ledger = shared.ledger.borrow_mut();
                for (number, recipient, place) in self.unheard.drain(..) {
                    ledger.heard(number, &recipient, place);
                }
                Ok(())
            }
            _ => Err(Gone),
        }
    }
}
