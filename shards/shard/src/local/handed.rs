//! Deliveries that are another user's: the text goes to the supervisor in memory, and the answer is the outcome.

use std::io::{self, Write};

use ringpost_smtp::client::RemoteReply;

use super::text::{Lines, Pieces, head, unreadable};
use super::{Delivery, is_junk};
use crate::handover::{HandOver, Handed, Handover, How, UserRecord};
use crate::letter::Outcome;
use crate::shard::{Shard, World};

/// Has one message delivered.
pub(super) async fn deliver<W: World>(shard: &Shard<W>, delivery: &Delivery, user: &UserRecord, how: &How) -> Outcome {
    let how = match how {
        How::Maildir { path, junk: true } => How::Maildir { path: path.clone(), junk: is_junk(shard, delivery).await },
        how => how.clone(),
    };
    let text = match text(shard, delivery).await {
        Ok(text) => text,
        Err(error) => {
            let reply = || RemoteReply::local(451, (4, 3, 0), format!("cannot hand over the message: {error}"));
            return unreadable(&error).unwrap_or_else(|| Outcome::Transient(reply()));
        }
    };
    let handover = Handover {
        user: user.clone(),
        how,
        sender: delivery.sender.clone(),
        recipient: delivery.recipient.clone(),
        extension: delivery.extension.clone(),
        original: delivery.original.clone(),
        copy: delivery.copy_name(&shard.hostname),
    };
    outcome(shard.hand.deliver(handover, text).await)
}

async fn text<W: World>(shard: &Shard<W>, delivery: &Delivery) -> io::Result<<W::H as HandOver>::Text> {
    let mut text = shard.hand.text()?;
    let mut lines = Lines::after(head(delivery));
    let mut pieces = Pieces::of(delivery);
    while let Some(piece) = pieces.next(shard).await? {
        lines.add(&piece);
        text.write_all(&lines.out)?;
        lines.out.clear();
    }
    text.write_all(&lines.finish())?;
    Ok(text)
}

fn outcome(handed: Handed) -> Outcome {
    match handed {
        Handed::Delivered { text } => Outcome::Delivered(RemoteReply::local(250, (2, 0, 0), text)),
        Handed::Temporary { status, text } => Outcome::Transient(RemoteReply::local(451, status, text)),
        Handed::Permanent { status, text, output } => {
            Outcome::Refused { reply: RemoteReply::local(550, status, text), output }
        }
    }
}
