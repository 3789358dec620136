// Characters of a note that nobody would see, or that act on the text around them.

// Control characters but tab and line feed, marks that turn the direction, and characters without a width or a look.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
export const MARK = "\u00a4"; // which every font has, and hardly any note

/** The text as it is shown: a mark for each such character, as long as what it stands for, so that every place stays what it is. */
export const visible = (text) => text.replace(UNSEEN, MARK);

export const countUnseen = (text) => text.match(UNSEEN)?.length ?? 0;
