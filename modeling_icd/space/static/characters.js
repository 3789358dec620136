// Characters of a note that nobody would see, or that act on the text around them.

// Control characters but tab and line feed, marks that turn the direction, and characters without a width or a look.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
export const MARK = "\u2426"; // for those without a picture of their own in Unicode

/** The text as it is shown: each such character as a picture of the same length, so that every place stays what it is. */
export function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.charCodeAt(0);
    if (code === 0x7f) return "\u2421";
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : MARK;
  });
}

export const countUnseen = (text) => text.match(UNSEEN)?.length ?? 0;
