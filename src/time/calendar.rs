//! Writes times as RFC 3339. Every record has one, so it is done without the machinery of formatting.

const MICROS_PER_SEC: u64 = 1_000_000;
const SECS_PER_DAY: u64 = 86_400;

/// The first day after the year 9999, in days since 1970.
const END_DAYS: u64 = 2_932_897;

/// Appends a time, UTC in microseconds, e.g. `2026-01-31T12:00:00.000000Z`. A time after the year 9999 is written as
/// the beginning of 1970.
pub(crate) fn push_rfc3339(text: &mut String, unix_micros: u64) {
    let (secs, micros) = (unix_micros / MICROS_PER_SEC, unix_micros % MICROS_PER_SEC);
    let (days, secs) = (secs / SECS_PER_DAY, secs % SECS_PER_DAY);
    if days >= END_DAYS {
        return push_rfc3339(text, 0);
    }
    let (year, month, day) = date(days);
    let [hour, minute, second] = [secs / 3_600, secs / 60 % 60, secs % 60];
    let ([y1, y2], [y3, y4]) = (digits(year / 100), digits(year % 100));
    let ([o1, o2], [d1, d2]) = (digits(month), digits(day));
    let ([h1, h2], [m1, m2], [s1, s2]) = (digits(hour), digits(minute), digits(second));
    let [u1, u2] = digits(micros / 10_000);
    let ([u3, u4], [u5, u6]) = (digits(micros / 100 % 100), digits(micros % 100));
    #[rustfmt::skip]
    let bytes = [
        y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T',
        h1, h2, b':', m1, m2, b':', s1, s2, b'.', u1, u2, u3, u4, u5, u6, b'Z',
    ];
    text.push_str(std::str::from_utf8(&bytes).unwrap_or_default());
}

/// The year, month and day in the Gregorian calendar. A year here begins in March, so that a leap day is its last,
/// and the days before each month are a linear function: 153 days for five months.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468; // from 1 March of the year 0
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days_since_1970 + DAYS_TO_1970;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let months_since_march = (5 * day + 2) / 153;
    let day = day - (153 * months_since_march + 2) / 5 + 1;
    let (month, next) = match months_since_march {
        0..=9 => (months_since_march + 3, 0),
        _ => (months_since_march - 9, 1),
    };
    (era * 400 + year + next, month, day)
}

/// The two digits of a number below 100.
fn digits(number: u64) -> [u8; 2] {
    let number = u8::try_from(number).unwrap_or(0);
    [b'0' + number / 10, b'0' + number % 10]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(micros: u64) -> String {
        let mut text = String::new();
        push_rfc3339(&mut text, micros);
        text
    }

    #[test]
    fn every_day_of_the_calendar_is_written_as_others_write_it() {
        for days in 0..END_DAYS {
            let micros = days * SECS_PER_DAY * MICROS_PER_SEC + days * 29_477_311 % 86_400_000_000;
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            assert_eq!(written(micros), humantime::format_rfc3339_micros(time).to_string());
        }
    }

    #[test]
    fn times_after_the_calendar_do_not_panic() {
        let end = END_DAYS * SECS_PER_DAY * MICROS_PER_SEC;
        assert_eq!(written(end - 1), "9999-12-31T23:59:59.999999Z");
        assert_eq!(written(end), "1970-01-01T00:00:00.000000Z");
        assert_eq!(written(u64::MAX), "1970-01-01T00:00:00.000000Z");
    }
}
