"""Words that change what is said of a condition, in English and in Spanish: who denies it, where the denial ends, whose it is."""

# What denies the words after it: up to the end of its sentence or one of `BUT`, at most `SCOPE` words.
DENIALS = frozenset(
    (
        *("no", "not", "nor", "never", "without", "denies", "denied", "deny", "negative", "absent", "absence"),
        *("ni", "sin", "niega", "ausencia"),
    )
)
BUT = frozenset(["but", "however", "although", "except", "pero", "aunque", "salvo"])
SCOPE = 8  # words

# More words that deny what comes after them, which TF-IDF does not mark: its published figures are of those above alone.
MORE_DENIALS = frozenset(
    ("ruled", "excluded", "niegan", "nego", "descarta", "descartar", "descarto", "negativo", "negativa")
)
# What denies the few words before it: "pneumonia was ruled out", "VIH negativo".
DENIALS_BEHIND = frozenset(
    ("ruled", "excluded", "negative", "absent", "negativo", "negativa", "ausente", "descartado", "descartada")
)
SCOPE_BEFORE = 3  # words
# After these, up to the end of the sentence, a condition is that of a relative.
FAMILY = frozenset(
    (
        *(
            "family",
            "familial",
            "mother",
            "father",
            "brother",
            "sister",
            "grandmother",
            "grandfather",
            "aunt",
            "uncle",
        ),
        *("familiar", "familiares", "madre", "padre", "hermano", "hermana", "abuelo", "abuela"),
    )
)
# What says that a condition is not known for sure, up to the end of the sentence or one of `BUT`, at most `SCOPE` words.
UNCERTAIN = frozenset(
    (
        *("possible", "possibly", "probable", "probably", "suspected", "suspicious", "suspicion", "questionable"),
        *("may", "might", "could", "likely", "versus", "vs", "evaluate", "rule_out", "concern", "presumed"),
        *("posible", "posiblemente", "probablemente", "sospecha", "sospechoso", "dudoso", "presunto"),
    )
)
# What says that a condition was there before, up to where an uncertain one ends.
PAST = frozenset(("history_of", "status_post", "previous", "prior", "antecedente_de", "previo"))
# Who is spoken of once more after a comma, where a sentence began with a relative.
SUBJECTS = frozenset(("patient", "he", "she", "child", "boy", "girl", "paciente", "nino", "nina"))
# Words that no term needs.
SMALL_WORDS = frozenset(
    (
        *(
            "a",
            "an",
            "and",
            "as",
            "at",
            "by",
            "due",
            "for",
            "from",
            "in",
            "is",
            "of",
            "on",
            "or",
            "the",
            "to",
            "was",
            "with",
        ),
        *("al", "con", "de", "del", "el", "en", "la", "las", "lo", "los", "para", "por", "se", "un", "una", "y"),
    )
)
