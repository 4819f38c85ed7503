//! A connection that many lookups share: made when one is first needed, by one for all, and made again when it is lost.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use super::table::Trouble;

/// See the module. `C` is a handle that all may use at the same time.
pub struct Link<C> {
    made: Mutex<Option<(u64, C)>>,
    number: AtomicU64,
    /// Connections with numbers up to this are not to be used any more.
    lost: AtomicU64,
}

/// One use of a connection.
pub struct Use<C> {
    /// The connection.
    pub connection: C,
    /// Its number, for [`Link::lose`].
    pub number: u64,
    /// It was there before: its other end may have closed it meanwhile.
    pub was_there: bool,
}

impl<C: Clone> Link<C> {
    /// Not connected.
    pub fn new() -> Self {
        Self { made: Mutex::new(None), number: AtomicU64::new(0), lost: AtomicU64::new(0) }
    }

    /// The connection. If there is none, the first who comes makes it and the others wait for that.
    pub async fn get<F: Future<Output = Result<C, Trouble>>>(
        &self,
        connect: impl FnOnce() -> F,
    ) -> Result<Use<C>, Trouble> {
        let mut made = self.made.lock().await;
        if let Some((number, connection)) = &*made
            && *number > self.lost.load(Ordering::Relaxed)
        {
            return Ok(Use { connection: connection.clone(), number: *number, was_there: true });
        }
        *made = None;
        let connection = connect().await?;
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        *made = Some((number, connection.clone()));
        Ok(Use { connection, number, was_there: false })
    }

    /// How many connections have been made.
    pub fn made(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// A connection is of no use any more; a newer one stays.
    pub fn lose(&self, number: u64) {
        self.lost.fetch_max(number, Ordering::Relaxed);
    }

    /// Whatever connection there is now is of no use.
    pub fn lose_all(&self) {
        self.lose(self.number.load(Ordering::Relaxed));
    }
}

/// How a question to a connection ended.
pub enum Said<T> {
    /// With an answer, or trouble that another connection would not mend.
    Answer(T),
    /// The connection is lost.
    Lost(String),
}

/// Asks a question. One that meets a connection which was closed while nobody looked is asked once more on a new one:
/// questions change nothing, so they may be repeated.
pub async fn ask<C: Clone, T, F, A>(
    link: &Link<C>,
    connect: impl Fn() -> F,
    mut question: impl FnMut(C) -> A,
) -> Result<T, Trouble>
where
    F: Future<Output = Result<C, Trouble>>,
    A: Future<Output = Said<Result<T, Trouble>>>,
{
    loop {
        let Use { connection, number, was_there } = link.get(&connect).await?;
        match question(connection).await {
            Said::Answer(answer) => return answer,
            Said::Lost(why) => {
                link.lose(number);
                if !was_there {
                    return Err(Trouble::Backend(why));
                }
            }
        }
    }
}
