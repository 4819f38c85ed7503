//! As whom we log in at a host that wants it: the label of its URL, looked up each time that a connection is made, so that
//! what is changed is used by the next one.

use std::rc::Rc;

use ringpost_conf::ActionKind;
use ringpost_conf::expand::Question;
use ringpost_io::Runtime;
use ringpost_routes::{Host, Site};
use ringpost_smtp::Secret;
use ringpost_smtp::client::Login;

use crate::shard::{Shard, World};
use crate::{limits, lookups};

/// Who logs in at a host; `None`: nobody does.
///
/// # Errors
/// There are no credentials for it now, and without them nothing is sent.
pub(crate) async fn at<W: World>(shard: &Rc<Shard<W>>, site: &Site, host: &Host) -> Result<Option<Login>, String> {
    let Some(label) = host.speech.label() else { return Ok(None) };
    // By the configuration in force here, which may be newer than the one that the ticket was made with.
    let settings = shard.settings();
    let action = site.login.as_deref().and_then(|action| settings.outlines.find(action));
    let action = action.and_then(|number| settings.config.actions.get(number));
    let Some(ActionKind::Relay(relay)) = action.map(|action| &action.kind) else {
        return Err("the relay action is not in the configuration any more".to_owned());
    };
    let told = match relay.login_question(label) {
        None => None,
        Some(question) => {
            let deadline = shard.runtime.now() + limits::DIRECTION;
            let question = vec![Question::Lookup(question)];
            lookups::all(shard, &settings.config, question, deadline).await.pop().map(|(_, told)| told)
        }
    };
    let login = relay.login(&settings.config, label, told)?;
    let password = Secret::new(login.password.reveal().to_owned());
    Ok(Some(Login { user: login.user.into(), password, nonce: None }))
}
