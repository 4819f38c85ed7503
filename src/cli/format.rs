//! `ringpost format`: what a format comes to, by the code that a delivery runs. For trying one before it stands in a file.

use clap::Args;
use ringpost_conf::{Format, FormatValues};

use super::client::print;
use crate::exit::{Code, Failure};
use crate::reading::look;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Text with `%{…}` in it
    #[arg(value_name = "FORMAT")]
    format: String,
    /// The user's name
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// The user's home directory
    #[arg(long, value_name = "DIR", default_value = "")]
    home: String,
    /// MAIL FROM, without brackets; empty: the null sender
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    sender: String,
    /// RCPT TO, without brackets
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    rcpt: String,
    /// What the recipient has become [default: as --rcpt]
    #[arg(long, value_name = "ADDRESS")]
    dest: Option<String>,
    /// The listener's tag
    #[arg(long, default_value = "")]
    tag: String,
    /// As the path of a mailbox: `~/` is the home directory, and no value may climb
    #[arg(long)]
    path: bool,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let (format, notices) = Format::read("FORMAT", &options.format).map_err(|reports| {
        eprint!("{}", reports.render_each(look()));
        Failure::new(Code::Configuration, "")
    })?;
    eprint!("{}", notices.render_each(look()));
    let values = FormatValues {
        sender: &options.sender,
        recipient: &options.rcpt,
        destination: options.dest.as_deref().unwrap_or(&options.rcpt),
        user_name: &options.user,
        user_directory: &options.home,
        tag: &options.tag,
        ..FormatValues::default()
    };
    let expanded = match options.path {
        true => format.expand_path(&values).map(|path| path.to_string_lossy().into_owned()),
        false => format.expand_text(&values),
    };
    match expanded {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => {
            Err(Failure::new(Code::Data, format!("{error}\n  a delivery would wait until that is mended (4.3.5)")))
        }
    }
}
