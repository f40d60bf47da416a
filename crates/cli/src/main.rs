//! `tensorkeep`: the command line. All of it is in the library beside this file, so that other
//! programs can make its report too.

fn main() -> std::process::ExitCode {
    tensorkeep_cli::main()
}
