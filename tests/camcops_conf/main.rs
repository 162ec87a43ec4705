//! The editor of camcops.conf, the merge, the table of keys and the template, judged by Python and by CamCOPS itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ini;
#[path = "../judge/mod.rs"]
mod judge;
mod keys;
mod merge;
mod template;
mod texts;
mod trial;
