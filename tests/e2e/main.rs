//! The built program, from outside: over loopback, with the tools that people use, killed and starved. Tests that answer
//! for a row of the seed carry its number.

mod support;

mod bounces;
mod check;
mod client_names;
mod commits;
mod crash;
mod deferred;
mod disk_full;
mod encrypted;
mod expansion;
mod first_run;
mod hostile;
mod language;
mod language_formats;
mod language_tables;
mod lifecycle;
mod limits;
mod local;
mod relay;
mod rules;
mod sendmail;
mod socket;
mod sources;
mod stress;
mod tables;
mod tags;
mod tls;
mod users;
mod wire;
