//! kmt-run: parse, run, exit. Everything else is in the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    ExitCode::from(kmt_run::main().await)
}
