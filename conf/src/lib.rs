//! From text to a checked, immutable [`Config`], and what that says of an address.
//!
//! Reading: [`load`] reads files through a [`Source`], and hands back a `Config` or every problem at once ([`Reports`]).
//! Deciding: [`Config::decide_with`] answers what happens to a recipient; [`Format`] makes the path of a delivery.
//! The language is described in `docs/grammar.md`. This room never resolves names, opens sockets or reads the clock, and it
//! knows no other room.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod canonical;
mod check;
mod classify;
mod command;
mod convert;
mod describe;
mod direction;
pub mod expand;
mod explain;
mod facts;
mod format;
mod lex;
pub mod limits;
mod load;
mod login;
mod model;
mod not_yet;
mod old_style;
pub mod overrides;
mod parse;
mod patience;
mod places;
mod profile;
mod reply;
mod report;
mod rules;
mod shape;
mod source_text;
pub mod srs;
pub mod tables;
mod text;
mod values;
pub mod verp;

pub use classify::{Pressure, Refused};
pub use command::{Command, CommandProblem};
pub use convert::convert;
pub use direction::Direction;
pub use explain::{ExplainedDelivery, ExplainedNode, ExplainedRule, Explanation};
pub use facts::{Decision, Facts, Lookup, ReverseName};
pub use format::{Format, FormatError, FormatNotice, FormatProblem, FormatValues, NoticeKind};
pub use load::{Exists, FileSystem, HelperOption, Memory, Options, Registered, Source, load, load_canonical};
pub use login::Login;
pub use model::*;
pub use not_yet::NotYet;
pub use patience::Patience;
pub use places::Places;
pub use report::{Look, Report, Reports, Severity};
pub use rules::{Among, Condition, Dest, LookUp, Negation, Origin, Test, Truth, Weighed};
pub use source_text::{Place, Span};
