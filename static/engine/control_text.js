/**
 * Keeps what a person typed apart from what the chat template wrote, through the template itself: a template sees
 * plain strings, so "<|turn>" inside a message would look like a turn.
 *
 * Two of Unicode's noncharacters, which no text may use for interchange, do it. GUARD is put where a character must not
 * join its neighbours; ESCAPE spells the two themselves. Both survive `trim`, concatenation and comparison.
 */
const GUARD = "\ufdd0";
const ESCAPE = "\ufdd1";
const BYTE_ORDER_MARK = "\ufeff";

/**
 * Makes the function that guards a message's text: a guard follows each character that can start a control token, so
 * that no control token is spelled by the text, nor by it together with what the template puts after it.
 *
 * @param {Iterable<string>} controlTokens
 * @returns {(text: string) => string}
 */
export function makeGuard(controlTokens) {
  const starts = new Set([...controlTokens].map((token) => String.fromCodePoint(/** @type {number} */ (token.codePointAt(0)))));
  /** @param {string} character */
  const guarded = (character) => {
    if (character === GUARD) return ESCAPE + "0";
    if (character === ESCAPE) return ESCAPE + "1";
    // JavaScript's trim takes the byte order mark for a space, Python's strip (the template's own) does not.
    if (character === BYTE_ORDER_MARK) return GUARD + character + GUARD;
    return character + GUARD;
  };
  const special = [...starts, GUARD, ESCAPE, BYTE_ORDER_MARK].map((character) => character.replace(/[\\\]^-]/g, "\\$&"));
  const pattern = new RegExp(`[${special.join("")}]`, "gu");
  return (text) => wellFormed(text).replace(pattern, guarded);
}

/**
 * The text as it was typed.
 *
 * @param {string} text
 */
export function unguard(text) {
  return text.replace(/\ufdd1([01])|\ufdd0/g, (_, escaped) => (escaped === "0" ? GUARD : escaped === "1" ? ESCAPE : ""));
}

/**
 * Lone surrogates (half a character, which UTF-8 cannot write) become U+FFFD.
 *
 * @param {string} text
 */
export function wellFormed(text) {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}
