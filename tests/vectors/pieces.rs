//! Ways to cut a body.

/// A body as a whole, in bytes, and cut at random in 20 ways, the same in each run.
pub(crate) fn pieces(body: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        // Xorshift, by Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let mut ways = vec![vec![body], body.chunks(1).collect()];
    for way in 0..20 {
        let longest = [2, 5, 17, 80, 1_000][way % 5];
        let (mut rest, mut cut) = (body, Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((draw(longest) + 1).min(rest.len()));
            cut.push(piece);
            rest = after;
        }
        ways.push(cut);
    }
    ways
}
