//! What takes a machine: each test makes its own, and nothing of it stays on the host. Together they are one program;
//! tests/run has as many of its files run at once as there are processors, and the longest ones begin.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod a_new_version;
mod amqp;
mod backup;
mod bundle;
mod certbot;
mod certificate;
mod cut_live;
mod databases;
mod day_two;
mod db;
mod doctor;
mod documentation;
mod extra;
mod firewall;
mod foreign_site;
mod harness;
mod hostile_account;
mod live;
mod own_tests;
mod package;
mod package_pending;
mod package_site;
mod pdf;
mod pictures;
mod proxy;
mod refused_settings;
mod release;
mod resilience;
mod secrets;
mod supervisor;
mod tablets;
mod trixie;
mod ubuntu;
mod undone;
mod upgraded_ground;
mod wait;
mod ways;
