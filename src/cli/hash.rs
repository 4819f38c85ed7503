//! `ringpost hash`: the hash of a password, for a table of `auth`. The password comes from the terminal without being shown,
//! or from standard input; never from the command line, which others can see.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::exit::{Code, Failure};
use crate::passwords::{self, Scheme};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How it is made
    #[arg(long, value_enum, default_value_t)]
    scheme: Scheme,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let password = if io::stdin().is_terminal() { asked()? } else { given()? };
    if password.is_empty() {
        return Err(Failure::new(Code::Usage, "an empty password lets nobody in"));
    }
    if password.len() > ringpost_smtp::limits::PASSWORD_BYTES_MAX {
        let most = ringpost_smtp::limits::PASSWORD_BYTES_MAX;
        return Err(Failure::new(Code::Usage, format!("the password is too long: {most} bytes are the most")));
    }
    if password.contains(char::is_control) {
        return Err(Failure::new(Code::Usage, "the password has control characters in it"));
    }
    if options.scheme == Scheme::Bcrypt && password.len() > BCRYPT_BYTES {
        let why = format!("bcrypt takes {BCRYPT_BYTES} bytes of a password at most; choose another --scheme");
        return Err(Failure::new(Code::Usage, why));
    }
    println!("{}", passwords::hash(&password, options.scheme));
    Ok(())
}

/// What comes behind them is ignored by every bcrypt.
const BCRYPT_BYTES: usize = 72;

/// The first line of standard input.
fn given() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    let most = ringpost_smtp::limits::PASSWORD_BYTES_MAX as u64 + 2;
    let read = io::stdin().lock().take(most).read_line(&mut line);
    read.map_err(|error| Failure::new(Code::Data, format!("the password cannot be read: {error}")))?;
    Ok(without_end(line))
}

/// Typed twice, unseen.
fn asked() -> Result<Zeroizing<String>, Failure> {
    let first = typed("Password: ")?;
    if *typed("Once more: ")? != *first {
        return Err(Failure::new(Code::Usage, "these are two different passwords"));
    }
    Ok(first)
}

fn typed(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let stdin = io::stdin();
    eprint!("{prompt}");
    io::stderr().flush()?;
    let before = tcgetattr(&stdin).map_err(io::Error::from)?;
    let mut unseen = before.clone();
    unseen.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &unseen).map_err(io::Error::from)?;
    let line = given();
    tcsetattr(&stdin, OptionalActions::Now, &before).map_err(io::Error::from)?;
    eprintln!();
    line
}

fn without_end(mut line: Zeroizing<String>) -> Zeroizing<String> {
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    line
}
