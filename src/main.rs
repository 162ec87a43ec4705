//! Parses the command line, calls what it asks for, and turns the result into an exit code.

use camcops_provision::base::error::Exit;
use camcops_provision::base::terminal;
use camcops_provision::cli::Cli;
use camcops_provision::commands;
use std::process::ExitCode;

/// The exit code of a program that was not written for what has come.
const PANICKED: i32 = 101;

fn main() -> ExitCode {
    end_at_panics();
    let cli = match Cli::parse_words(std::env::args_os()) {
        Ok(cli) => cli,
        Err(why) => {
            // Help and version are answers, not errors.
            let code = if why.use_stderr() { Exit::Usage as u8 } else { 0 };
            let _ = why.print();
            // The parser failed before it could tell what was asked for.
            if why.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                let text = why.render().to_string();
                terminal::failure_document(text.trim().trim_start_matches("error: "), Exit::Usage);
            }
            return ExitCode::from(code);
        }
    };
    let json = cli.global.json;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        // As the first thread has: code without optimisation needs more than the usual two.
        .thread_stack_size(8 << 20)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(commands::run(cli));
            // A name that does not resolve must not hold the end up.
            runtime.shutdown_background();
            result
        }
        Err(why) => Err(why.into()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            let exit = Exit::of(&why);
            terminal::report_failure(&why, exit, json);
            ExitCode::from(exit as u8)
        }
    }
}

/// A panic is told and ends the program, whichever thread it is in. Without this it would be ended by a signal, and the
/// kernel could write what it had in memory, passwords too, to a file.
fn end_at_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |about| {
        tell(about);
        std::process::exit(PANICKED);
    }));
}
