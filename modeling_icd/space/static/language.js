// Which language a note is in, by its commonest words: enough to tell English from Spanish, and silent where it is not plain.

const WORDS = {
  en: "the of and was with for is on to in she he her his no at by from had has this that were which an be are not as",
  es: "de la el que en y los las con por del una un se su para al no es como lo sin presenta fue más paciente sus ante tras",
};
export const NAMES = { en: "English", es: "Spanish" };
const SETS = Object.fromEntries(Object.entries(WORDS).map(([language, words]) => [language, new Set(words.split(" "))]));
const READ = 2000; // words of a note
const LEAST = 8; // common words of a language before anything is said
const TIMES = 3; // as many as of any other language

/** `"en"`, `"es"`, or `null` where a text is too short or too mixed to say. */
export function languageOf(text) {
  const counts = Object.fromEntries(Object.keys(SETS).map((language) => [language, 0]));
  for (const word of (text.slice(0, 20 * READ).toLowerCase().match(/\p{L}+/gu) ?? []).slice(0, READ)) {
    for (const [language, words] of Object.entries(SETS)) counts[language] += words.has(word);
  }
  const [[first, most], [, next]] = Object.entries(counts).sort((one, other) => other[1] - one[1]);
  return most >= LEAST && most >= TIMES * next ? first : null;
}

/** One sentence where a note is plainly in another language than its coder reads, or `""`. */
export function languageHint(text, model) {
  if (!NAMES[model.language]) return "";
  const found = languageOf(text);
  if (!found || found === model.language) return "";
  const other = { en: "codiesp-en", es: "codiesp-es" }[found];
  return (
    `This looks like ${NAMES[found]}, and ${model.name} reads ${NAMES[model.language]}. ` +
    `The coder ${other} reads ${NAMES[found]}.`
  );
}
