//! A run, several runs, or one file as one HTML page. The page is self-contained: its styles and
//! scripts are the folder `page/`, put together at compile time, its data is JSON in it, and
//! nothing is fetched. Head, verdict, damage, attempts and checkpoints are HTML and read without
//! scripts. Every text from a file is escaped: names are hostile.

mod cost;
mod damage;
mod data;
mod facts;
mod head;
mod layers;
mod lists;
mod looked;
mod one_file;
mod pack;
mod page;
mod pairs;
mod run;
mod several;
mod story;
mod tensors;
mod verdict;
mod words;

pub(crate) use one_file::html as of_file;
use run::Run;
pub(crate) use several::{Entry, html as of_runs};
use tensorkeep::{Reader, Result};
pub(crate) use words::int;

/// Bytes read, about, for the layers and again for the pairs: a few seconds each. Two checkpoints
/// are read whatever they cost.
const READ_UP_TO: u64 = 8 << 30;
/// The cost of reading one tensor besides its bytes, in bytes.
const EACH_TENSOR: u64 = 128 << 10;

/// Additions to the page, and how much of the run is read for it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The page's title: the user's name for the run.
    pub title: String,
    /// Two steps to compare first; without them, the first and the newest.
    pub diff: Option<(u64, u64)>,
    /// Free bytes where the run lies, for saying when the disk is full.
    pub free_bytes: Option<u64>,
    /// Verify every byte of every checkpoint.
    pub verify_all: bool,
    /// Verify nothing and read no tensor.
    pub quick: bool,
    /// Where a served page asks whether there is news: a path on its own server.
    pub live: Option<String>,
}

impl Options {
    /// A page of this title.
    pub fn titled(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Free bytes where the run lies.
    pub fn free_bytes(self, bytes: u64) -> Self {
        Self { free_bytes: Some(bytes), ..self }
    }
}

/// The page of a run. Verifies from the newest checkpoint back to one that is intact, and whatever
/// is drawn; reads all tensors of that one, and the model's of as many others as a few gigabytes
/// allow.
///
/// ```no_run
/// use tensorkeep::Reader;
/// use tensorkeep_cli::report::{self, Options};
///
/// let reader = Reader::open("runs/lenet")?;
/// let page = report::html(&reader, &Options::titled("lenet"))?;
/// std::fs::write("lenet.html", page).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// # Errors
/// `NotFound` for steps to compare that do not exist; errors of listing and reading. Damage is
/// shown, not an error.
pub fn html(reader: &Reader, options: &Options) -> Result<String> {
    let run = Run::read(reader, options)?;
    let facts = run.facts();
    let mut body = String::with_capacity(64 << 10);
    body.push_str(&head::head(&run, &facts));
    let sections = [
        ("curves", "Curves", run.curves_words()),
        ("timeline", "Timeline", run.timeline_words()),
        ("layers", "Layers", run.layers_words()),
        ("tensors", "Tensors", run.tensors_words()),
        ("compare", "Comparison", run.compare_words()),
    ];
    let mut main = head::verdict(&run, &facts);
    let mut contents = vec![("verdict", "Verdict", head::verdict_flag(&facts))];
    if run.newest_id().is_some() || !run.story.metrics.is_empty() {
        for (id, title, words) in sections {
            let Some(words) = words else { continue };
            let inner = if id == "timeline" { lists::attempts(&run) } else { String::new() };
            main.push_str(&words::section(id, title, &words, &inner));
            contents.push((id, title, run.flag(id)));
        }
        for (id, title, section) in [
            ("damage", "Damage", damage::damage(&run)),
            ("cost", "Cost", cost::cost(&run)),
            ("checkpoints", "Checkpoints", lists::checkpoints(&run)),
        ] {
            main.push_str(&section);
            contents.push((id, title, run.flag(id)));
        }
    }
    body.push_str(&page::contents(&contents));
    body.push_str(&format!("<main>{main}</main>\n"));
    Ok(page::page(&options.title, "", &body, &data::json(&run, &facts), page::Kind::Run))
}
