//! Reads the text of a dump as it flows by: which tables it has, how many rows each of them, and whether it comes to its
//! end.
//!
//! Only the beginnings of lines and the places of quotes and brackets are looked at. A line that begins within a text
//! is none: both families of clients write a line break in a text as `\n`.

use memchr::{memchr, memchr2, memchr3, memmem};
use std::collections::BTreeMap;

/// How much of a line tells what it is.
const HEAD: usize = 400;
/// The columns of a table may be named before its rows.
const LONGEST_HEAD: usize = 1 << 20;
const INSERT: &[u8] = b"INSERT INTO `";
const TABLE: &[u8] = b"-- Table structure for table `";
const CREATE: &[u8] = b"CREATE TABLE `";
const COMPLETED: &[u8] = b"-- Dump completed";
const BY_A_CLIENT: [&[u8]; 2] = [b"-- MySQL dump", b"-- MariaDB dump"];
/// Where views begin, and what a client does at its end: what is there is not loaded with a table.
const OTHERS: [&[u8]; 7] = [
    b"-- Temporary table structure for view",
    b"-- Temporary view structure for view",
    b"-- Final view structure for view",
    b"-- Dumping events for",
    b"-- Dumping routines for",
    b"/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE",
    b"/*!40101 SET SQL_MODE=@OLD_SQL_MODE",
];

/// What stands from one place of a dump to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begins {
    /// A table, with its rows.
    Table(String),
    /// Something else: views, what was set for the dump is set back.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The beginning of a line, as far as it was read.
    Head,
    /// What is left of a line.
    Line,
    /// Between the values of an INSERT.
    Values,
    Text,
    /// Behind a backslash in a text.
    Escaped,
}

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct DumpScan {
    /// Each table with the number of its rows.
    pub(crate) tables: BTreeMap<String, u64>,
    /// Whether a client of MariaDB or MySQL made it: then it says when it is complete.
    pub(crate) by_a_client: bool,
    /// Whether it says that it is complete, and nothing follows.
    pub(crate) complete: bool,
    at: At,
    head: Vec<u8>,
    rows: u64,
    into: String,
}

impl Default for DumpScan {
    fn default() -> DumpScan {
        DumpScan {
            tables: BTreeMap::new(),
            by_a_client: false,
            complete: false,
            at: At::Head,
            head: Vec::new(),
            rows: 0,
            into: String::new(),
        }
    }
}

impl DumpScan {
    /// Goes on with these bytes, up to where something else begins: gives how many bytes come before that, and what it
    /// is. Whoever asks goes on from there. A line that tells it is held back until it is known: so are its bytes.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> (usize, Option<Begins>) {
        let mut from = 0;
        while from < bytes.len() {
            let rest = &bytes[from..];
            match self.at {
                At::Head => {
                    let (taken, whole) = self.take_head(rest);
                    from += taken;
                    if whole && let Some(begins) = self.begin_line() {
                        return (from, Some(begins));
                    }
                }
                At::Line => match memchr(b'\n', rest) {
                    Some(end) => {
                        from += end + 1;
                        self.at = At::Head;
                    }
                    None => from = bytes.len(),
                },
                At::Values => match memchr3(b'\'', b'(', b';', rest) {
                    Some(at) => {
                        from += at + 1;
                        match rest[at] {
                            b'\'' => self.at = At::Text,
                            b'(' => self.rows += 1,
                            _ => self.end_statement(),
                        }
                    }
                    None => from = bytes.len(),
                },
                At::Text => match memchr2(b'\'', b'\\', rest) {
                    Some(at) => {
                        from += at + 1;
                        // A quote that is doubled ends one text and begins the next one.
                        self.at = match rest[at] {
                            b'\'' => At::Values,
                            _ => At::Escaped,
                        };
                    }
                    None => from = bytes.len(),
                },
                At::Escaped => {
                    from += 1;
                    self.at = At::Text;
                }
            }
        }
        (from, None)
    }

    /// Goes on with these bytes, whatever begins in them.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, _) = self.next(rest);
            rest = &rest[taken..];
        }
    }

    /// Takes more of the beginning of a line; says how much, and whether that is all that is needed.
    fn take_head(&mut self, rest: &[u8]) -> (usize, bool) {
        let inserts = |head: &[u8]| head.starts_with(INSERT) && head.len() < LONGEST_HEAD;
        let before = self.head.len();
        let end = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let limit = match before < HEAD {
            true => HEAD - before,
            false => end,
        };
        let mut taken = end.min(limit);
        self.head.extend_from_slice(&rest[..taken]);
        let mut whole = self.head.ends_with(b"\n") || self.head.len() >= HEAD;
        if inserts(&self.head) {
            // Up to the first row: from there on brackets are counted.
            whole = false;
            let name_ends = table_name(&self.head, INSERT).map_or(usize::MAX, |(_, end)| end);
            let values = self.head.get(name_ends..).and_then(|rest| memmem::find(rest, b" VALUES"));
            if let Some(values) = values {
                let end = name_ends + values + b" VALUES".len();
                taken = end.saturating_sub(before);
                self.head.truncate(end);
                whole = true;
            }
        }
        (taken, whole)
    }

    fn begin_line(&mut self) -> Option<Begins> {
        let head = std::mem::take(&mut self.head);
        self.at = match head.ends_with(b"\n") {
            true => At::Head,
            false => At::Line,
        };
        if head == b"\n" {
            return None;
        }
        self.complete = head.starts_with(COMPLETED);
        self.by_a_client |= BY_A_CLIENT.iter().any(|line| head.starts_with(line));
        if let Some((into, _)) = table_name(&head, INSERT).filter(|_| head.ends_with(b"VALUES")) {
            self.into = into;
            self.rows = 0;
            self.at = At::Values;
        } else if let Some((table, _)) = table_name(&head, CREATE) {
            self.tables.entry(table).or_default();
        } else if let Some((table, _)) = table_name(&head, TABLE) {
            return Some(Begins::Table(table));
        } else if OTHERS.iter().any(|line| head.starts_with(line)) {
            return Some(Begins::Other);
        }
        None
    }

    fn end_statement(&mut self) {
        *self.tables.entry(std::mem::take(&mut self.into)).or_default() += self.rows;
        self.at = At::Line;
    }
}

/// The name behind the beginning of a line, and where it ends.
fn table_name(head: &[u8], beginning: &[u8]) -> Option<(String, usize)> {
    let rest = head.strip_prefix(beginning)?;
    let mut end = 0;
    loop {
        end += memchr(b'`', &rest[end..])?;
        if rest.get(end + 1) != Some(&b'`') {
            break;
        }
        end += 2;
    }
    let name = String::from_utf8_lossy(&rest[..end]).replace("``", "`");
    Some((name, beginning.len() + end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUMP: &str = "/*!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19\n--\n-- Table structure for table `a`\n--\nCREATE TABLE `a` (\n  `x` text DEFAULT '(',\n);\nINSERT INTO `a` VALUES\n(1,'it''s (not) a \\' row; \\\\'),\n(2,NULL);\nINSERT INTO `a` VALUES (3,'\\\\'),(4,'INSERT INTO `b` VALUES (1)');\n--\n-- Table structure for table `b``c`\n--\nCREATE TABLE `b``c` (\n);\nINSERT INTO `b``c` (`id`, `VALUES(`) VALUES (0x28),(_binary 'x');\n/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n-- Dump completed on 2026-11-21\n";

    fn scanned(pieces: &[&[u8]]) -> DumpScan {
        let mut scan = DumpScan::default();
        for piece in pieces {
            scan.feed(piece);
        }
        scan
    }

    fn is_right(scan: &DumpScan) -> bool {
        let rows = BTreeMap::from([("a".to_owned(), 4), ("b`c".to_owned(), 2)]);
        scan.tables == rows && scan.complete && scan.by_a_client
    }

    #[test]
    fn rows_are_counted_in_both_ways_of_writing_them() {
        let scan = scanned(&[DUMP.as_bytes()]);
        assert!(is_right(&scan), "{scan:?}");
    }

    #[test]
    fn tables_begin_where_they_are_said_to() {
        let (mut scan, mut rest, mut found) = (DumpScan::default(), DUMP.as_bytes(), Vec::new());
        while !rest.is_empty() {
            let (taken, begins) = scan.next(rest);
            rest = &rest[taken..];
            found.extend(begins);
        }
        let table = |name: &str| Begins::Table(name.into());
        assert_eq!(found, [table("a"), table("b`c"), Begins::Other]);
    }

    #[test]
    fn a_dump_that_is_cut_or_goes_on_is_not_complete() {
        let end = DUMP.find("-- Dump completed").unwrap();
        assert!(!scanned(&[&DUMP.as_bytes()[..end]]).complete);
        assert!(!scanned(&[DUMP.as_bytes(), b"DROP TABLE a;\n"]).complete);
        assert!(scanned(&[DUMP.as_bytes(), b"\n"]).complete);
    }

    proptest! {
        #[test]
        fn where_the_pieces_end_does_not_matter(mut ends in proptest::collection::vec(0..DUMP.len(), 0..20)) {
            ends.sort_unstable();
            let (mut from, mut pieces) = (0, Vec::new());
            for end in ends {
                pieces.push(&DUMP.as_bytes()[from..end]);
                from = end;
            }
            pieces.push(&DUMP.as_bytes()[from..]);
            let scan = scanned(&pieces);
            prop_assert!(is_right(&scan), "{scan:?}");
        }

        #[test]
        fn nothing_makes_it_stumble(text in "[-`'\\\\\n(;INSERTOVALU ]{0,200}") {
            scanned(&[text.as_bytes()]);
        }
    }
}
