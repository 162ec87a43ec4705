//! Texts that look like configuration files, and those that only nearly do.

// Each test file uses its own part of this.
#![allow(dead_code)]

use proptest::prelude::*;

/// Any text: often INI, often broken, with all that Python takes for blanks.
pub fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        12 => prop::sample::select(vec![
            "[site]\n", "[server]\n", "[site]", "[DEFAULT]\n", "  [site]\n", "[a]b] c\n", "[]", "[x",
            "KEY = v\n", "key: w\r\n", "OTHER=\n", "  A = 1\n", "    more\n", "\tmore\n", "B\n",
            "# note\n", "  ; note\n", "#", ";", "=", ":", " = ", "A", "b", "key", "É", "İ", "Σ",
            "PASSWORD", "://u:p@h", "amqp://u:p@h/v", "%", "%%", "%(A)s", "$", "\"", "'", "\\",
        ]),
        6 => prop::sample::select(vec![
            "\n", "\n", "\n\n", "\r\n", "\r", "\n    ", "\n  ", "\n\t", " ", "   ",
        ]),
        1 => prop::sample::select(vec![
            "\u{b}", "\u{c}", "\u{1c}", "\u{1d}", "\u{1e}", "\u{1f}", "\u{85}", "\u{a0}",
            "\u{2028}", "\u{2029}", "\u{3000}", "\u{feff}", "\u{0}", "😀",
        ]),
        1 => any::<char>().prop_map(|c| Box::leak(c.to_string().into_boxed_str()) as &str),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// A file that configparser accepts, in all the styles that people use.
pub fn any_file() -> impl Strategy<Value = String> {
    let sections =
        prop::sample::subsequence(vec!["site", "server", "DEFAULT", "export", "recipient:x", "a]b", "other"], 0..5);
    let body = (any_margin(), any_settings());
    let file = (sections.prop_shuffle(), prop::collection::vec(body, 5), any::<bool>(), any::<bool>()).prop_map(
        |(sections, bodies, crlf, open_end)| {
            let mut text = String::from("# head\n");
            for (section, (margin, settings)) in sections.iter().zip(bodies) {
                text += &format!("{margin}[{section}]\n{}", settings.concat());
            }
            if open_end {
                text.truncate(text.trim_end().len());
            }
            if crlf { text.replace('\n', "\r\n") } else { text }
        },
    );
    let accepted = |text: &String| camcops_provision::camcops_conf::Ini::parse(text).problems().is_empty();
    prop_oneof![9 => file.boxed(), 1 => any_text().boxed()].prop_filter("accepted", accepted)
}

fn any_margin() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", "", "", "", " ", "  ", "\t", "    "])
}

fn any_settings() -> impl Strategy<Value = Vec<String>> {
    let names = vec!["KEY", "A", "other", "b", "New", "C", "D", "PASSWORD"];
    let names = prop::sample::subsequence(names, 0..6).prop_shuffle();
    let delimiter = prop::sample::select(vec![" = ", "=", ": ", ":", " : ", " =", "\t=\t"]);
    let more = prop::sample::select(vec!["", "", "", "\n\n", "\n    # in\n      x", "\n      x\n\n        y"]);
    let note = prop::sample::select(vec!["", "", "", "\n", "# note\n", "\n  ; note\n", "\n\n#x = y\n"]);
    let style = (any_margin(), delimiter, good_line(), more, note);
    (names, prop::collection::vec(style, 6)).prop_map(|(names, styles)| {
        let settings = names.iter().zip(styles);
        settings
            .map(|(name, (margin, delimiter, value, more, note))| {
                format!("{margin}{name}{delimiter}{value}{more}\n{note}")
            })
            .collect()
    })
}

/// One line that stands anywhere in a value.
pub fn good_line() -> impl Strategy<Value = String> {
    any_line().prop_filter("one line", |line| {
        !line.contains('\n') && camcops_provision::camcops_conf::check_value(&format!("\n{line}\n.")).is_ok()
    })
}

pub fn any_line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "a", "é", "=", ":", "#", ";", "[", "]", "[site]", "%", "%%", "%(x)s", "$", "\"", "'",
            " ", "\t", "\\", "/", "@", "{", "\u{a0}", "\u{1f}", "😀", "K = v",
        ]),
        1 => any::<char>().prop_map(|c| Box::leak(c.to_string().into_boxed_str()) as &str),
    ];
    prop_oneof![
        9 => prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        1 => "[ -~]{300,900}",
    ]
}

/// Values of one or more lines, many of which a file can't carry.
pub fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => any_line(),
        2 => prop::collection::vec(any_line(), 0..5).prop_map(|lines| lines.join("\n")),
    ]
}

/// Values that a file can carry.
pub fn good_value() -> impl Strategy<Value = String> {
    any_value()
        .prop_map(|value| value.split('\n').map(str::trim).collect::<Vec<_>>().join("\n"))
        .prop_filter("carried", |value| camcops_provision::camcops_conf::check_value(value).is_ok())
}

pub fn any_key() -> impl Strategy<Value = (&'static str, &'static str)> {
    (
        prop::sample::select(vec!["site", "server", "DEFAULT", "export", "recipient:x"]),
        prop::sample::select(vec!["KEY", "key", "A", "OTHER", "B", "NEW"]),
    )
}
