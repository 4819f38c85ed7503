//! `ringpost sendmail`, and this program under the name of `sendmail`; and what the server itself starts when messages wait
//! that were sent while it was down.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use ringpost_io::sys;
use ringpost_smtp::client::{RecipientResult, RemoteReply};

use super::client::{Found, Server, print};
use super::{Seams, mailq, newaliases, state_dir};
use crate::exit::{Code, Failure};
use crate::ipc::control::{Answer, Door, Request};
use crate::limits::SUBMIT_BYTES;
use crate::sendmail::dialogue::{Dialogue, Entrance};
use crate::sendmail::message::{Message, with_line_ends};
use crate::sendmail::options::{self, Mode, USAGE};
use crate::sendmail::submission::Submission;
use crate::sendmail::{addresses, drop, spool};
use crate::supervisor::local_path;

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// As sendmail and Postfix have them: -t, -i, -f SENDER, -bs, -bp, -q …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION or RECIPIENT")]
    arguments: Vec<OsString>,
}

pub fn run(options: Options, seams: &Seams, given: Option<PathBuf>) -> Result<(), Failure> {
    let state = state(seams, given);
    if options.arguments.iter().any(|word| word == "--help") {
        return print(&format!("{USAGE}\n"));
    }
    let options = options::Options::parse(options.arguments).map_err(|why| said(Code::Usage, &why))?;
    match options.mode {
        Mode::Deliver => deliver(&options, &state, seams),
        Mode::Smtp => relay_terminal(&state, seams),
        Mode::List => mailq::run(&mailq::Options::default(), &state),
        Mode::Aliases => newaliases::run(&newaliases::Options::default(), seams),
        Mode::Flush => flush(&state, seams),
    }
}

/// What the server starts: everything that waits in the spool goes to it.
pub fn pickup(seams: &Seams, state: &Path) -> Result<(), Failure> {
    let complain = |line: &str| eprintln!("ringpost: {line}");
    if let Some(entrance) = entrance(state, seams)? {
        loop {
            let taken = if is_roots(state) { drop::take_in(state, complain)? } else { 0 };
            spool::flush(state, &entrance, complain)?;
            if taken == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Whether what users have left there is ours to look at: we are root, and so is whose directory it is.
fn is_roots(state: &Path) -> bool {
    rustix::process::geteuid().is_root() && std::fs::metadata(state).is_ok_and(|directory| directory.uid() == 0)
}

/// The state directory that is meant: the given one, one that was made here by trying it out, the installed one.
fn state(seams: &Seams, given: Option<PathBuf>) -> PathBuf {
    let is_said = given.is_some() || seams.root.is_some();
    let here = state_dir(seams, given);
    match is_said || here.is_dir() {
        true => here,
        false => PathBuf::from(ringpost_conf::limits::STORE_PATH),
    }
}

/// A line as scripts know it from sendmail.
fn said(code: Code, why: &str) -> Failure {
    eprintln!("send-mail: {why}");
    Failure::new(code, "")
}

fn deliver(options: &options::Options, state: &Path, seams: &Seams) -> Result<(), Failure> {
    let submission = read(options)?;
    let why = match entrance(state, seams)? {
        None => "no server runs".to_owned(),
        Some(entrance) => match entrance.connect(None).and_then(Dialogue::begin) {
            Ok(mut dialogue) => {
                let composed = submission.compose(dialogue.hostname());
                let results = dialogue.send(&composed);
                dialogue.quit();
                return conclude(&submission, &results, state, options.verbose);
            }
            Err(error) => error.to_string(),
        },
    };
    keep(&submission, state, &why, options.verbose)
}

/// The message on standard input, and whom it is for.
fn read(options: &options::Options) -> Result<Submission, Failure> {
    let mut input = Vec::new();
    io::stdin().lock().take(SUBMIT_BYTES + 1).read_to_end(&mut input)?;
    if input.len() as u64 > SUBMIT_BYTES {
        return Err(said(Code::Data, &format!("the message is larger than {} MiB", SUBMIT_BYTES >> 20)));
    }
    let mut message = Message::read(&with_line_ends(&input, options.ignore_dots));
    let mut recipients: Vec<String> = options.recipients.iter().flat_map(|word| addresses::of_field(word)).collect();
    if options.from_header {
        recipients.append(&mut message.recipients);
    }
    let mut seen = HashSet::new();
    recipients.retain(|recipient| seen.insert(recipient.clone()));
    match (recipients.is_empty(), options.from_header) {
        (true, true) => return Err(said(Code::Data, "no recipients in the header, and none were named")),
        (true, false) => return Err(said(Code::Usage, &format!("no recipients\n{USAGE}"))),
        (false, _) => {}
    }
    if let Some(bad) = recipients.iter().chain(&options.sender).find(|one| one.contains(|c: char| c.is_ascii_control()))
    {
        return Err(said(Code::Data, &format!("a control character in the address {bad:?}")));
    }
    let uid = rustix::process::getuid().as_raw();
    let (user, gecos) = match sys::name_of(uid) {
        Ok(Some(found)) => found,
        // Nobody that the system knows has mail, too.
        Ok(None) | Err(_) => (uid.to_string(), String::new()),
    };
    let full_name = options.full_name.clone().unwrap_or_else(|| full_name(&gecos, &user));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = u64::from(std::process::id()) << 32 | u64::from(now.subsec_nanos());
    let mut submission = Submission::new(message, user, full_name, now.as_millis() as u64, random);
    submission.recipients = recipients;
    submission.sender = options.sender.clone();
    submission.wishes = options.wishes.clone();
    Ok(submission)
}

/// The first part of the comment in the system's list; an ampersand is the login name, with a capital.
fn full_name(gecos: &str, user: &str) -> String {
    let mut letters = user.chars();
    let capital: String = letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default();
    gecos.split(',').next().unwrap_or_default().replace('&', &capital)
}

/// Where the server takes mail: at its local socket, or else where it listens nearest. `None`: it does not run.
fn entrance(state: &Path, seams: &Seams) -> Result<Option<Entrance>, Failure> {
    let socket = local_path(state);
    if socket.exists() {
        return Ok(Some(Entrance::Socket(socket)));
    }
    match Server::find(state) {
        Ok(Found::Running(mut server)) => {
            let mut door = None;
            server.ask(&Request::Door, |answer| {
                if let Answer::Door(found) = answer {
                    door = Some(found);
                }
                Ok(())
            })?;
            Ok(door.map(|door: Door| Entrance::Net(door.smtp)))
        }
        Ok(Found::Stopped) => Ok(None),
        // Its state is none of this user's business; what it does for everybody is.
        Err(failure) if failure.code == Code::NotPermitted => {
            let port = 25 + seams.port_offset;
            Ok(Some(Entrance::Net(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])))
        }
        // It starts or stops.
        Err(failure) if failure.code == Code::TryLater => Ok(None),
        Err(failure) => Err(said(Code::TryLater, &failure.text)),
    }
}

/// Taken, refused, or kept for later: each recipient by itself. Refusals are printed, and decide the exit code.
fn conclude(submission: &Submission, results: &[RecipientResult], state: &Path, verbose: bool) -> Result<(), Failure> {
    let mut later = Vec::new();
    let mut refused = None;
    for (recipient, result) in submission.recipients.iter().zip(results) {
        match result {
            RecipientResult::Delivered(reply) if verbose => eprintln!("send-mail: {recipient}: {reply}"),
            RecipientResult::Delivered(_) => {}
            RecipientResult::Transient(reply) | RecipientResult::NextTransaction(reply) => {
                later.push((recipient.clone(), reply.to_string()))
            }
            RecipientResult::Permanent(reply) => {
                eprintln!("send-mail: {recipient}: {reply}");
                refused = refused.or(Some(code(reply)));
            }
        }
    }
    if let Some((_, why)) = later.first() {
        let why = why.clone();
        let recipients = later.into_iter().map(|(recipient, _)| recipient).collect();
        keep(&submission.only_for(recipients), state, &why, verbose)?;
    }
    refused.map_or(Ok(()), |code| Err(Failure::new(code, "")))
}

/// The exit code that a refusal is to a program (sysexits.h), by its enhanced status code (RFC 3463).
fn code(reply: &RemoteReply) -> Code {
    match reply.status_or_default() {
        (_, 1, _) => Code::NoUser,
        (_, 7, _) => Code::NotPermitted,
        (_, 5 | 6, _) | (_, 3, 4) => Code::Data,
        _ => Code::Unavailable,
    }
}

fn keep(submission: &Submission, state: &Path, why: &str, verbose: bool) -> Result<(), Failure> {
    let kept = match spool::keep(state, submission) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => drop::leave(state, submission),
        other => other,
    };
    match kept {
        Ok(()) => {
            if verbose {
                eprintln!("send-mail: kept until the server takes it ({why})");
            }
            Ok(())
        }
        Err(error) => {
            Err(said(Code::TryLater, &format!("{why}, and it cannot be kept in {}: {error}", state.display())))
        }
    }
}

fn flush(state: &Path, seams: &Seams) -> Result<(), Failure> {
    Server::running(state)?.ask(&Request::Retry, |_| Ok(()))?;
    pickup(seams, state)
}

/// SMTP on standard input and output, by the server itself. Half of it is done by a thread that ends with the process.
fn relay_terminal(state: &Path, seams: &Seams) -> Result<(), Failure> {
    let stream = match entrance(state, seams)? {
        None => Err(io::Error::new(ErrorKind::NotConnected, "no server runs")),
        Some(entrance) => entrance.connect(None),
    };
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            print("421 4.3.2 no service here now\r\n")?;
            return Err(said(Code::TryLater, &error.to_string()));
        }
    };
    let mut server = stream.try_clone()?;
    std::thread::Builder::new().name("input".into()).spawn(move || {
        // A client that ends without QUIT has ended all the same.
        let _ = io::copy(&mut io::stdin().lock(), &mut server);
        server.finish();
    })?;
    let mut out = io::stdout().lock();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => {
                out.write_all(&piece[..count])?;
                out.flush()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names_as_the_system_has_them() {
        assert_eq!(full_name("Gilles C,,,", "gilles"), "Gilles C");
        assert_eq!(full_name("& the Great,x", "charles"), "Charles the Great");
        assert_eq!(full_name("", "u"), "");
    }

    #[test]
    fn refusals_have_exit_codes() {
        let of = |code: u16, status| self::code(&RemoteReply::local(code, status, "x"));
        assert_eq!(of(550, (5, 1, 1)), Code::NoUser);
        assert_eq!(of(552, (5, 3, 4)), Code::Data);
        assert_eq!(of(550, (5, 7, 1)), Code::NotPermitted);
        assert_eq!(of(554, (5, 0, 0)), Code::Unavailable);
    }
}
