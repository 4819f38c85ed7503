//! The built program, from outside: over loopback, with the tools that people use, killed and starved. Tests that answer
//! for a row of the seed carry its number.

mod support;

mod check;
mod commits;
mod crash;
mod deferred;
mod disk_full;
mod encrypted;
mod expansion;
mod first_run;
mod lifecycle;
mod local;
mod relay;
mod rules;
mod sendmail;
mod sources;
mod stress;
mod tables;
mod users;
mod wire;
