//! Time as a store records it. Both clocks stand still in a simulated run, so that equal runs have
//! equal bytes. Code that only decides when something is due reads [`Instant`] itself: that time is
//! not recorded.

#[cfg(feature = "testing")]
pub(crate) mod script;

use std::time::{Duration, Instant, SystemTime};

pub(crate) fn seconds_since_1970() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(seconds) = script::seconds() {
        return seconds;
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The same in fractions, of milliseconds: when a value was logged.
pub(crate) fn time() -> f64 {
    #[cfg(feature = "testing")]
    if let Some(seconds) = script::seconds() {
        return seconds as f64;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_millis() as f64 / 1000.0)
}

/// Whether this is a simulated run, in which nothing else happens during a wait.
pub(crate) fn is_scripted() -> bool {
    #[cfg(feature = "testing")]
    if script::seconds().is_some() {
        return true;
    }
    false
}

/// Waits, unless this is a simulated run.
pub(crate) fn pause(duration: Duration) {
    if !is_scripted() {
        std::thread::sleep(duration);
    }
}

/// Formats a recorded time, in seconds since 1970, as `2026-11-28 20:15:03 UTC`.
pub fn date(seconds_since_1970: u64) -> String {
    const DAY: u64 = 86_400;
    let (days, second) = (seconds_since_1970 / DAY, seconds_since_1970 % DAY);
    // Howard Hinnant, "chrono-compatible low-level date algorithms". Years of 365.2425 days that
    // begin with March, so that the leap day is the last: the proleptic Gregorian calendar.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Measures a duration, by a clock that does not jump.
#[derive(Debug)]
pub(crate) struct Timer(Instant);

impl Timer {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        #[cfg(feature = "testing")]
        if script::seconds().is_some() {
            return Duration::ZERO;
        }
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (1_078_012_800, "2004-02-29 00:00:00 UTC"),
            (1_795_896_903, "2026-11-28 20:15:03 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
