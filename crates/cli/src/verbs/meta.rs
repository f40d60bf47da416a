//! `completions` and `man`: what packagers install, made from the same definition as the help.

use crate::args::Args;
use crate::exit::Exit;
use crate::{Done, output};
use clap::CommandFactory;

pub fn completions(shell: clap_complete::Shell) -> Done {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "tensorkeep", &mut text);
    output::print(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Ok)
}

/// All verbs on one page, each with its flags.
pub fn man() -> Done {
    let command = Args::command();
    let mut text = Vec::new();
    let wrong = |error| tensorkeep::Error::io("making the man page", error);
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(wrong)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let page = clap_mangen::Man::new(verb.clone());
        text.extend(format!(".SH {}\n", verb.get_name().to_uppercase()).bytes());
        page.render_description_section(&mut text).map_err(wrong)?;
        page.render_options_section(&mut text).map_err(wrong)?;
    }
    output::print(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Ok)
}
