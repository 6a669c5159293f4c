//! `phalanx top`: what a node does right now. On a terminal a screen that is drawn anew every second; else one picture as
//! text, or a line of JSON for each interval.

mod rates;
mod screen;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::{Failure, Outcome, ask, print};
use crate::status::figures::Overview;
use crate::status::{Answer, What, fetch};
use rates::Rates;
use screen::{Screen, Sort, plain};

/// The size of the picture where there is no terminal.
const PICTURE: (u16, u16) = (100, 40);
/// How long the keyboard is waited for before somebody looks whether it is still wanted.
const KEY: Duration = Duration::from_millis(200);

/// How `top` is shown.
#[derive(Args, Clone, Debug)]
pub(super) struct How {
    /// One line of JSON for each interval, until Ctrl-C
    #[arg(long)]
    json: bool,
    /// The node's socket; default: the only one in /run/phalanx
    #[arg(long, value_name = "PATH", env = "PHALANX_SOCKET")]
    socket: Option<PathBuf>,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// End after so many intervals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) fn run(how: &How) -> Outcome {
    let socket = ask::socket(how.socket.as_deref())?;
    ask::runtime()?.block_on(async {
        let mut beat = tokio::time::interval(Duration::from_secs(how.interval));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if !how.json && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
            on_terminal(&socket, beat, how.count).await
        } else {
            as_text(&socket, beat, how).await
        }
    })
}

/// A look at the node.
async fn look(socket: &Path) -> Result<Overview, String> {
    let json = fetch(socket, What::Overview).await.map_err(|error| error.to_string())?;
    match Answer::parse(What::Overview, &json) {
        Ok(Answer::Overview(overview)) => Ok(*overview),
        _ => Err("the node's answer is of another version".to_owned()),
    }
}

async fn as_text(socket: &Path, mut beat: Interval, how: &How) -> Outcome {
    // Without a terminal a picture is looked at once.
    let mut left = if how.json { how.count } else { Some(how.count.unwrap_or(1)) };
    beat.tick().await;
    let mut before = look(socket).await.map_err(Failure::new)?;
    while left != Some(0) {
        beat.tick().await;
        let after = look(socket).await.map_err(Failure::new)?;
        if let Some(rates) = Rates::between(&before, &after) {
            print(&if how.json {
                format!("{}\n", serde_json::to_string(&rates).map_err(Failure::new)?)
            } else {
                plain(Screen { rates: Some(&rates), sort: Sort::default(), problem: None }, PICTURE.0, PICTURE.1)
            });
            left = left.map(|n| n - 1);
        }
        before = after;
    }
    Ok(())
}

/// The terminal as it was, whatever way this ends: by a key, a signal, an error; a panic restores it too.
struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn on_terminal(socket: &Path, mut beat: Interval, count: Option<u64>) -> Outcome {
    // Before the screen is taken: a node that is not there is told of as by any other command.
    let mut before = look(socket).await.map_err(Failure::new)?;
    let mut signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::new)?;
    let mut terminal = Restored(ratatui::try_init().map_err(Failure::new)?);
    let mut keys = keyboard();
    let (mut rates, mut sort, mut problem, mut left) = (None, Sort::default(), None, count);
    beat.tick().await;
    loop {
        let screen = || Screen { rates: rates.as_ref(), sort, problem: problem.as_deref() };
        terminal.0.draw(|frame| frame.render_widget(screen(), frame.area())).map_err(Failure::new)?;
        if left == Some(0) {
            return Ok(());
        }
        let [term, interrupt, hangup] = &mut signals[..] else { return Ok(()) };
        tokio::select! {
            _ = beat.tick() => match look(socket).await {
                Ok(after) => {
                    rates = Rates::between(&before, &after).or(rates);
                    (before, problem) = (after, None);
                    left = left.map(|n| n - 1);
                }
                Err(why) => problem = Some(why),
            },
            event = keys.recv() => match event.map(meaning) {
                Some(Some(Wish::Sort)) => sort = sort.next(),
                Some(None) => {}
                Some(Some(Wish::Quit)) | None => return Ok(()),
            },
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Quit,
    Sort,
}

/// What a key asks for. Anything else that happens to a terminal, a new size among it, only draws it anew.
fn meaning(event: Event) -> Option<Wish> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return None };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('s') => Some(Wish::Sort),
        _ => None,
    }
}

/// What the terminal sends: read by a thread of its own, because reading waits. It ends with its reader.
fn keyboard() -> mpsc::Receiver<Event> {
    let (events, received) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !events.is_closed() {
            let event = match event::poll(KEY) {
                Ok(true) => event::read(),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            // A terminal that is gone cannot be read: the channel ends, and with it everything.
            let Ok(event) = event else { return };
            if events.blocking_send(event).is_err() {
                return;
            }
        }
    });
    received
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_screen_says() {
        let key = |code, modifiers| meaning(Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Wish::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::Quit));
        assert_eq!(key(KeyCode::Char('s'), KeyModifiers::NONE), Some(Wish::Sort));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meaning(Event::Resize(80, 24)), None);
    }
}
