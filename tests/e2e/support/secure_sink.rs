//! A receiving server that offers encryption, or breaks it, wants a login where it is told to, and remembers what was said in
//! clear, and by whom.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What it does about encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Never heard of it.
    Nothing,
    /// STARTTLS.
    StartTls,
    /// And then REQUIRETLS.
    RequireTls,
    /// Offers STARTTLS and answers 454.
    Refuses,
    /// Offers STARTTLS, and what it then says is no TLS.
    Garbles,
    /// As before, but it hangs up.
    HangsUp,
    /// Says more behind the 220 to STARTTLS.
    Injects,
    /// From the first byte.
    Implicit,
}

/// A MAIL command: its sender, and whether it was encrypted.
pub type Said = (String, bool);

/// What a server that offers SCRAM-SHA-256 without knowing a password does to be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pretends {
    /// Shows a signature that is none.
    #[default]
    Signature,
    /// Says that all is well, without showing anything.
    Nothing,
    /// Has said its part before, to somebody else.
    OtherNonce,
    /// Keeps whoever answers busy for an hour.
    Rounds,
}

/// Who may log in, and how.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    /// What EHLO offers once the connection is encrypted, such as `PLAIN LOGIN`; nothing: logins are unheard of.
    pub offered: &'static str,
    /// Names and passwords.
    pub users: Vec<(&'static str, &'static str)>,
    /// Instead of judging.
    pub reply: Option<&'static str>,
    /// Where SCRAM-SHA-256 is offered.
    pub pretends: Pretends,
}

/// A login that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub user: String,
    pub password: String,
    /// Whether anybody between could read it.
    pub encrypted: bool,
}

/// It runs until it is dropped.
pub struct SecureSink {
    address: SocketAddr,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    closing: AtomicBool,
    logins: Mutex<Logins>,
    tried: Mutex<Vec<Tried>>,
    /// Sender and who had logged in, of each message.
    authors: Mutex<Vec<(String, String)>>,
    mails: Mutex<Vec<Said>>,
    messages: Mutex<Vec<Said>>,
    commands: Mutex<Vec<String>>,
}

trait Both: Read + Write {}
impl<S: Read + Write> Both for S {}

impl SecureSink {
    pub fn open(address: SocketAddr, offer: Offer, config: Arc<ServerConfig>) -> Self {
        Self::open_for(address, offer, config, Logins::default())
    }

    /// One that takes mail of those alone who have logged in.
    pub fn open_for(address: SocketAddr, offer: Offer, config: Arc<ServerConfig>, logins: Logins) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let seen = Arc::new(Seen { logins: Mutex::new(logins), ..Seen::default() });
        let for_thread = seen.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.closing.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, config) = (for_thread.clone(), config.clone());
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, offer, config, &seen));
            }
        });
        Self { address, seen, thread: Some(thread) }
    }

    /// Others may log in from now on.
    pub fn allow(&self, logins: Logins) {
        *self.seen.logins.lock().expect("no panic") = logins;
    }

    /// Every login that was tried so far.
    pub fn tried(&self) -> Vec<Tried> {
        self.seen.tried.lock().expect("no panic").clone()
    }

    /// Sender and author of every message that was taken from somebody who had logged in.
    pub fn authors(&self) -> Vec<(String, String)> {
        self.seen.authors.lock().expect("no panic").clone()
    }

    /// Every MAIL command so far.
    pub fn mails(&self) -> Vec<Said> {
        self.seen.mails.lock().expect("no panic").clone()
    }

    /// The same, whole.
    pub fn commands(&self) -> Vec<String> {
        self.seen.commands.lock().expect("no panic").clone()
    }

    /// Every message that was taken: the sender, and whether it came encrypted.
    pub fn messages(&self) -> Vec<Said> {
        self.seen.messages.lock().expect("no panic").clone()
    }
}

impl Drop for SecureSink {
    fn drop(&mut self) {
        self.seen.closing.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, offer: Offer, config: Arc<ServerConfig>, seen: &Seen) {
    // A test that fails does not hang.
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let encrypt = |stream| {
        let connection = ServerConnection::new(config.clone()).expect("a good configuration");
        Box::new(StreamOwned::new(connection, stream)) as Box<dyn Both>
    };
    // Whatever goes wrong is for the other side to tell.
    let _ = match offer {
        Offer::Implicit => talk(encrypt(stream), offer, true, true, seen),
        _ => match talk(Box::new(stream.try_clone().expect("descriptors")), offer, false, true, seen) {
            Ok(true) => talk(encrypt(stream), offer, true, false, seen),
            other => other,
        },
    };
}

/// A dialogue; `true`: a handshake follows.
fn talk(stream: Box<dyn Both>, offer: Offer, encrypted: bool, greet: bool, seen: &Seen) -> std::io::Result<bool> {
    let mut stream = BufReader::new(stream);
    let say = |stream: &mut BufReader<Box<dyn Both>>, text: &str| {
        stream.get_mut().write_all(text.as_bytes())?;
        stream.get_mut().flush()
    };
    if greet {
        say(&mut stream, "220 secure.example\r\n")?;
    }
    let mut sender = String::new();
    let mut author = None;
    let offered = || seen.logins.lock().expect("no panic").offered;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let verb = line.trim_end().to_ascii_uppercase();
        if verb.starts_with("EHLO") {
            let offers = !encrypted && offer != Offer::Nothing;
            let mut reply = "250-secure.example\r\n".to_owned();
            if offers {
                reply += "250-STARTTLS\r\n";
            }
            if !offered().is_empty() {
                reply += &format!("250-AUTH {}\r\n", offered());
            }
            if encrypted && offer == Offer::RequireTls {
                reply += "250-REQUIRETLS\r\n";
            }
            say(&mut stream, &format!("{reply}250 HELP\r\n"))?;
        } else if verb.starts_with("AUTH ") {
            let (reply, user) = auth(&mut stream, line.trim_end(), encrypted, seen)?;
            if reply.starts_with("235") {
                author = Some(user);
            }
            say(&mut stream, &format!("{reply}\r\n"))?;
        } else if verb.starts_with("MAIL") && author.is_none() && !offered().is_empty() {
            say(&mut stream, "530 5.7.0 log in first\r\n")?;
        } else if verb == "STARTTLS" {
            match offer {
                Offer::StartTls | Offer::RequireTls => {
                    say(&mut stream, "220 go\r\n")?;
                    assert!(stream.buffer().is_empty(), "nothing may come before the reply");
                    return Ok(true);
                }
                Offer::Garbles => say(&mut stream, "220 go\r\n")?,
                Offer::HangsUp => {
                    say(&mut stream, "220 go\r\n")?;
                    return Ok(false);
                }
                Offer::Injects => say(&mut stream, "220 go\r\n250 slipped in\r\n")?,
                Offer::Refuses | Offer::Nothing | Offer::Implicit => say(&mut stream, "454 4.7.0 not now\r\n")?,
            }
        } else if let Some(rest) = verb.strip_prefix("MAIL FROM:<") {
            sender = rest.split('@').next().unwrap_or_default().to_ascii_lowercase();
            seen.commands.lock().expect("no panic").push(line.trim_end().to_owned());
            seen.mails.lock().expect("no panic").push((sender.clone(), encrypted));
            say(&mut stream, "250 ok\r\n")?;
        } else if verb == "DATA" {
            say(&mut stream, "354 go\r\n")?;
            loop {
                line.clear();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(false);
                }
                if line == ".\r\n" {
                    break;
                }
            }
            if let Some(author) = &author {
                seen.authors.lock().expect("no panic").push((sender.clone(), author.clone()));
            }
            seen.messages.lock().expect("no panic").push((sender.clone(), encrypted));
            say(&mut stream, "250 taken\r\n")?;
        } else if verb == "QUIT" {
            say(&mut stream, "221 bye\r\n")?;
            return Ok(false);
        } else if verb.starts_with("RCPT") || verb == "RSET" {
            say(&mut stream, "250 ok\r\n")?;
        } else {
            say(&mut stream, "500 what\r\n")?;
        }
    }
}

/// The dialogue of AUTH up to its reply.
/// The reply, and who has tried.
fn auth(
    stream: &mut BufReader<Box<dyn Both>>,
    line: &str,
    encrypted: bool,
    seen: &Seen,
) -> std::io::Result<(String, String)> {
    let ask = |stream: &mut BufReader<Box<dyn Both>>, question: &str| {
        stream.get_mut().write_all(format!("334 {question}\r\n").as_bytes())?;
        stream.get_mut().flush()?;
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        Ok::<_, std::io::Error>(decoded(answer.trim_end()))
    };
    let (user, password) = match line.split(' ').collect::<Vec<_>>()[..] {
        ["AUTH", "PLAIN", initial] => {
            let text = decoded(initial);
            let parts: Vec<&str> = text.split('\0').collect();
            let [_, user, password] = parts[..] else { return Ok(("501 5.5.2 what".to_owned(), String::new())) };
            (user.to_owned(), password.to_owned())
        }
        ["AUTH", "SCRAM-SHA-256", first] => {
            let pretends = seen.logins.lock().expect("no panic").pretends;
            let nonce = decoded(first).split(",r=").nth(1).expect("a nonce").to_owned();
            let (nonce, rounds) = match pretends {
                Pretends::OtherNonce => ("of somebody else".to_owned(), 4096_u32),
                Pretends::Rounds => (nonce, 4_000_000_000),
                Pretends::Signature | Pretends::Nothing => (nonce, 4096),
            };
            ask(stream, &coded(&format!("r={nonce}more,s=c2FsdA==,i={rounds}")))?;
            if pretends == Pretends::Signature {
                ask(stream, &coded("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))?;
            }
            return Ok(("235 2.7.0 welcome".to_owned(), String::new()));
        }
        ["AUTH", "LOGIN"] => (ask(stream, "VXNlcm5hbWU6")?, ask(stream, "UGFzc3dvcmQ6")?),
        _ => return Ok(("504 5.5.4 what".to_owned(), String::new())),
    };
    let logins = seen.logins.lock().expect("no panic").clone();
    let good = logins.users.iter().any(|(name, secret)| *name == user && *secret == password);
    seen.tried.lock().expect("no panic").push(Tried { user: user.clone(), password, encrypted });
    let reply = logins.reply.unwrap_or(if good { "235 2.7.0 welcome" } else { "535 5.7.8 who are you" });
    Ok((reply.to_owned(), user))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A text in base64.
fn coded(text: &str) -> String {
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// A line of base64.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == byte).expect("base64");
        (bits, count) = (bits << 6 | digit as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
