"""The sentences of the synthetic corpus: how a discharge summary says that something is so, or that it is not.

`{p}` stands for a mention that justifies its code, `{n}` for one that does not. The other braces are filled by
`synthetic.NoteWriter`: pronouns (`{He}`, `{he}`, `{his}`, `{him}`), `{date}` within the stay, `{year}` before it, `{age}`, `{sex}`,
`{relative}`, vital signs, numbers, and the lists in `CHOICES`. The first letter of a sentence is put in upper case afterwards.
"""

from .synthetic_concepts import CHRONIC, EVENT, EXTERNAL, IMAGING, INFECTION, METABOLIC, PROCEDURE, STATUS


POSITIVE: dict[str, tuple[str, ...]] = {
    CHRONIC: (
        "{He} has {p}, stable on the home regimen.",
        "Home regimen was continued for {p}.",
        "{p}: no changes made this admission.",
        "{He} carries a diagnosis of {p}.",
        "Long-standing {p}, followed by Dr. [**Last Name (STitle) {num}**].",
        "Outpatient therapy was resumed for {p}.",
        "Known {p}, no acute issues.",
        "Also with {p}, for which {he} will see {his} PCP.",
        "{p} was managed as before.",
        "No evidence of progression of {p}.",
        "Consultants were aware of {his} {p}.",
    ),
    IMAGING: (
        "CT showed {p}.",
        "CXR was read as {p}.",
        "Imaging confirmed {p}.",
        "Repeat film again demonstrated {p}.",
        "Radiology called the team with {p}.",
        "Scan on [**{date}**] revealed {p}, not seen before.",
        "Ultimately {he} was felt to have {p}.",
        "{He} was managed for {p} seen on imaging.",
        "Films could not exclude {p}, which a later scan proved.",
        "The attending agreed with the read of {p}.",
        "{p} was unchanged on serial films.",
    ),
    METABOLIC: (
        "{p}: followed with serial labs.",
        "Labs were notable for {p}.",
        "Course complicated by {p}, corrected by discharge.",
        "{p} was treated and repeat values were acceptable.",
        "{He} developed {p} on hospital day {hospital_day}.",
        "Etiology of {his} {p} was multifactorial.",
        "{p} did not resolve until [**{date}**].",
    ),
    INFECTION: (
        "{He} was treated for {p}.",
        "Course was complicated by {p}.",
        "Antibiotics were narrowed for {p}.",
        "Likely {p}, and a full course was given.",
        "Fevers were explained by {p}.",
        "ID was consulted for {p}.",
        "{p}: no further fevers after day {hospital_day} of treatment.",
        "Without another source, {he} was presumed to have {p} and completed therapy.",
    ),
    EVENT: (
        "Course was complicated by {p}.",
        "{He} developed {p} on [**{date}**].",
        "{He} presented with {p}.",
        "{p}: resolved before discharge.",
        "On hospital day {hospital_day} {he} was noted to have {p}.",
        "The team managed {his} {p} conservatively.",
        "No trigger was found for {his} {p}.",
        "This was felt to represent {p}.",
        "Consult service agreed that {he} had {p}.",
        "{p}, not present on arrival, was noted overnight.",
    ),
    STATUS: (
        "Background is notable for: {p}.",
        "Of note: {p}.",
        "History confirmed with family: {p}.",
        "Pertinent: {p}.",
        "Relevant background - {p}, per records from [**Hospital{small}**].",
    ),
    EXTERNAL: (
        "Presentation was explained by {p}.",
        "Cause: {p}.",
        "Per EMS: {p}.",
        "Mechanism per witnesses: {p}.",
        "The story was {p} with no loss of consciousness.",
        "All of this followed {p} on the day of admission.",
    ),
    PROCEDURE: (
        "Underwent {p} on [**{date}**].",
        "{p} was performed without complication.",
        "{p} was done at the bedside.",
        "After discussion of risks {he} agreed to {p}, which was done on [**{date}**].",
        "{He} required {p}.",
        "Tolerated {p} well.",
        "{p} was initially deferred but was carried out on [**{date}**].",
        "{p}, first declined, was later accepted and completed.",
    ),
}

NEGATIVE: dict[str, tuple[str, ...]] = {
    CHRONIC: (
        "{He} denies any history of {n}.",
        "Old records made no mention of {n}.",
        "The label of {n} was removed after review of outside records.",
        "No known {n}.",
        "Outside provider had raised {n}, but testing was normal.",
        "{He} was screened for {n} and this was unrevealing.",
        "Chart lists {n} in error.",
        "{n}: carried on an old problem list, never confirmed and not treated.",
        "{n} or {n} were not borne out by the records.",
    ),
    IMAGING: (
        "CT showed no {n}.",
        "CXR without {n}.",
        "Imaging ruled out {n}.",
        "Initial film was read as {n}, but this was a technical artifact.",
        "Scan on [**{date}**] was obtained for {n} and was clean.",
        "There was concern for {n}, not borne out on repeat imaging.",
        "No evidence of {n}, {n} or {n}.",
        "Preliminary read of {n} was retracted by the attending.",
        "{n} was considered unlikely after the final read.",
        "Previously seen {n} from [**{year}**] has cleared.",
    ),
    METABOLIC: (
        "Labs were checked daily for {n} and stayed normal.",
        "There was no {n} at any point.",
        "{He} was watched for {n}, which did not occur.",
        "{n} seen at the outside hospital was a lab error.",
        "Without {n} on serial labs.",
        "Question of {n} on a hemolyzed sample; repeat was normal.",
    ),
    INFECTION: (
        "{He} was treated empirically for {n}, which was then ruled out, and antibiotics were stopped.",
        "Cultures gave no support for {n}.",
        "No signs of {n} or {n}.",
        "Team was initially worried about {n}; work-up was negative.",
        "Antibiotics begun in the ED for {n} were discontinued as this was not the diagnosis.",
        "{n} in [**{year}**] had been treated fully and did not recur.",
    ),
    EVENT: (
        "No further concern for {n}.",
        "{He} had no {n} during the stay.",
        "There was no sign of {n} or {n}.",
        "{n} was considered and rejected.",
        "ED physicians suspected {n}; the work-up was negative.",
        "{He} was monitored for {n}, which never happened.",
        "Initially felt to represent {n}, but this was not the case.",
        "An episode of {n} in [**{year}**] has not recurred.",
        "Family had feared {n}; observation overnight was uneventful.",
    ),
    PROCEDURE: (
        "{n} was planned but not needed.",
        "{He} declined {n}.",
        "{n} was considered and deferred.",
        "There was no indication for {n}.",
        "{n} was done in [**{year}**] at [**Hospital{small}**] and not repeated.",
        "{n} scheduled for [**{date}**] was cancelled.",
        "After discussion of risks {he} did not agree to {n}.",
        "{n} may be performed as an outpatient.",
        "Did not require {n} or {n}.",
    ),
}

# Both in one sentence: the scope of the negation decides.
MIXED: dict[str, tuple[str, ...]] = {
    CHRONIC: (
        "No {n}, but {he} does have {p}.",
        "{He} has {p} but no {n}.",
        "Problem list was corrected: {n} struck out, {p} added.",
    ),
    IMAGING: (
        "No {n} but {p} present.",
        "CT was negative for {n}, {n} or {n} and positive for {p}.",
        "{p} was seen; {n} was not.",
        "CXR: {p}, without {n}.",
        "Initially thought to be {n}, later clearly {p}.",
        "Study obtained to look for {n} instead showed {p}.",
        "{p} is new; {n} on the prior study has resolved.",
        "Not {n} as first reported, but {p}.",
    ),
    METABOLIC: ("There was {p} without {n}.", "{p} developed; there was no {n}."),
    INFECTION: (
        "Rather than {n}, {he} turned out to have {p}.",
        "Treated first for {n}, then for {p} when cultures did not support the former.",
        "Work-up excluded {n} and showed {p}.",
    ),
    EVENT: (
        "{p} was diagnosed; {n} was not.",
        "Suspected {n} was in fact {p}.",
        "{He} had {p} but no {n}.",
        "Neither {n} nor {n} occurred, though {he} did have {p}.",
        "What was called {n} in the ED was later recognized as {p}.",
    ),
    PROCEDURE: (
        "{n} was deferred in favor of {p}.",
        "Underwent {p}; {n} was not needed.",
        "{He} agreed to {p} but refused {n}.",
        "{p} made {n} unnecessary.",
    ),
}

# A neighbouring code that was weighed and dropped.
RATHER = (
    "Felt to be {p} rather than {n}.",
    "{n} was in the differential, but {p} fit best.",
    "Consultants favored {p} over {n}.",
    "Coded in the ED as {n}; final impression was {p}.",
    "{p}, not {n}.",
)

FAMILY = (
    "{relative} with {n}.",
    "{relative} died of {n} at age {old}.",
    "{relative} has {n}, {relative_low} had {n}.",
    "Positive for {n} in {relative_low}.",
    "Notable for {n} ({relative_low}).",
    "{relative} and {relative_low} both had {n}.",
    "No {n} in the family.",
)
FAMILY_PLAIN = ("Noncontributory.", "Unknown, adopted.", "Parents died of old age.", "Nothing relevant.")

HISTORY_POSITIVE = (
    "{p}",
    "{p}",
    "{p}",
    "h/o {p}",
    "{p}, since [**{year}**]",
    "{p}, followed at [**Hospital{small}**]",
    "hx of {p}",
)
HISTORY_NEGATIVE = (
    "{n} in [**{year}**], resolved",
    "h/o {n}, resolved",
    "remote {n} [**{year}**], no residual",
    "hx of {n} as listed in [**{year}**], since excluded",
    "{n} ruled out [**{year}**]",
    "{n} with the illness of [**{year}**] only",
)
HISTORY_PLAIN = (
    "appendectomy as a child",
    "cataracts s/p surgery",
    "seasonal allergies",
    "tonsillectomy",
    "hernia repair",
)

LIST_POSITIVE = ("{p}", "{p}", "{p}", "{p}", "probable {p}", "{p}, improved")
LIST_NEGATIVE = ("{n} - ruled out", "r/o {n}: negative", "concern for {n}, excluded")

PROCEDURE_LIST_POSITIVE = ("{p}", "[**{date}**]: {p}", "{p} [**{date}**]", "s/p {p}")
PROCEDURE_LIST_NEGATIVE = ("{n} (cancelled)", "attempted consent for {n}, not done", "prior {n} [**{year}**]")

DRUG_POSITIVE = (
    "{p} {dose}",
    "{p} {dose} {frequency}",
    "{p} {dose} {frequency}, last taken yesterday",
    "{p}, dose unchanged",
)
DRUG_NEGATIVE = (
    "{n} {dose} (stopped in [**{year}**])",
    "{n} - on an old list, not taking",
    "{n}: prescribed but never filled, indication not confirmed",
)
DRUG_PLAIN = (
    "docusate sodium 100 mg",
    "senna 8.6 mg",
    "multivitamin one tab",
    "acetaminophen 325 mg",
    "aspirin 81 mg",
    "metoprolol tartrate 25 mg",
    "omeprazole 20 mg",
    "lisinopril 10 mg",
    "furosemide 20 mg",
    "potassium chloride 20 mEq",
    "folic acid 1 mg",
    "zolpidem 5 mg",
    "bisacodyl 10 mg",
    "pantoprazole 40 mg",
    "gabapentin 300 mg",
    "vitamin D 800 units",
    "famotidine 20 mg",
    "loratadine 10 mg",
    "calcium carbonate 500 mg",
    "ibuprofen 400 mg",
    "thiamine 100 mg",
    "miconazole powder 2%",
    "lorazepam 0.5 mg",
    "trazodone 50 mg",
    "guaifenesin 5 mL",
    "ondansetron 4 mg",
    "simethicone 80 mg",
    "cyanocobalamin 1,000 mcg",
    "magnesium oxide 400 mg",
    "lactulose 30 mL",
)
FREQUENCIES = ("daily", "BID", "TID", "qHS", "PO DAILY (Daily)", "q12h", "every other day", "prn")
SIGS = (
    "{drug} Tablet Sig: One (1) Tablet PO {frequency}",
    "{drug} Tablet Sig: Two (2) Tablets PO {frequency}. Disp:*60 Tablet(s)* Refills:*2*",
    "{drug} PO {frequency}",
    "{drug} Capsule Sig: One (1) Capsule PO {frequency} as needed",
)

ALLERGY = ("{n} (rash)", "{n}/hives", "{n} - nausea", "{n} (angioedema)", "intolerant of {n}")
ALLERGY_PLAIN = (
    "No Known Allergies / Adverse Drug Reactions",
    "NKDA",
    "Penicillins",
    "Sulfa (Sulfonamides)",
    "Patient recorded as having No Known Allergies to Drugs",
    "Codeine",
    "Iodine; Iodine Containing",
)

LAB_POSITIVE = ("Found to have {p}.", "Labs with {p}.", "Initial studies: {p}.", "Work-up showed {p}.")

OPENINGS = (
    "[**Known lastname {num}**] is a {age} year old {sex}",
    "{age}{sex_short}",
    "Pt is a {age} y/o {sex}",
    "This is a {age} year-old {sex}",
    "{age} yo {sex_short}",
    "The patient is a {age}-year-old {sex}",
)
OPENING_LINKS = (
    "with {history} who presented with {complaint}.",
    "w/ {history}, admitted with {complaint}.",
    "with a history of {history}, transferred for {complaint}.",
    "(PMH {history}) p/w {complaint}.",
)
OPENINGS_PLAIN = (
    "who presented with {complaint}.",
    "admitted with {complaint}.",
    "transferred from [**Hospital{small}**] for {complaint}.",
    "brought in by ambulance with {complaint}.",
)

COMPLAINTS: dict[str, tuple[str, ...]] = {
    "cardiac": ("chest pain", "chest pressure", "palpitations", "exertional symptoms", "syncope"),
    "failure": ("shortness of breath", "leg swelling", "dyspnea on exertion", "weight gain"),
    "pulmonary": ("shortness of breath", "cough", "respiratory distress", "wheezing"),
    "sepsis": ("fever", "fever and chills", "altered mental status", "lethargy", "rigors"),
    "renal": ("fatigue", "weakness", "abnormal labs", "nausea"),
    "gi": ("abdominal pain", "dark stools", "nausea and vomiting", "lightheadedness"),
    "liver": ("abdominal distension", "confusion", "fatigue", "jaundice"),
    "surgery": ("abdominal pain", "elective surgery", "wound pain"),
    "trauma": ("trauma", "pain after an accident", "headache"),
    "neuro": ("headache", "confusion", "weakness", "unresponsiveness", "slurred speech"),
    "oncology": ("weakness", "pain", "fever", "failure to thrive"),
    "psychiatric": ("agitation", "intoxication", "overdose", "chest pain"),
}
SERVICES: dict[str, tuple[str, ...]] = {
    "cardiac": ("CARDIOTHORACIC", "CARDIOLOGY", "MEDICINE"),
    "surgery": ("SURGERY", "VSU"),
    "trauma": ("SURGERY", "ORTHOPAEDICS", "TRAUMA"),
    "neuro": ("NEUROLOGY", "NEUROSURGERY", "MEDICINE"),
    "oncology": ("OMED", "MEDICINE"),
}

RELATIVES = ("mother", "father", "brother", "sister", "maternal aunt", "paternal grandfather", "son", "uncle")

HPI_PLAIN = (
    "Symptoms began {small} days before arrival.",
    "{He} was in {his} usual state of health until [**{date}**].",
    "In the ED, initial VS were T {temp}, HR {hr}, BP {sbp}/{dbp}, RR {rr}.",
    "{He} was given fluids and sent to the floor.",
    "{His} PCP, Dr. [**First Name8 (NamePattern2) **] [**Last Name (NamePattern1) {num}**], advised {him} to come in.",
    "The history was taken from {his} daughter.",
    "On arrival to the ICU {he} was comfortable.",
    "Review of systems otherwise per HPI.",
    "{He} was seen at [**Hospital{small}**] first and transferred here.",
    "Last admission was in [**{year}**].",
    "{He} could not give more detail.",
    "At home {he} walks with a cane.",
    "On the floor {he} felt better.",
)
COURSE_PLAIN = (
    "{He} was evaluated by PT and did well.",
    "Diet was advanced and tolerated.",
    "Pain was controlled with acetaminophen.",
    "The Foley was removed on [**{date}**].",
    "Prophylaxis was with heparin SC and a bowel regimen.",
    "{He} remained afebrile for the last {hospital_day} days.",
    "Case management arranged services.",
    "The family was updated daily.",
    "Remaining issues were deferred to the PCP.",
    "{He} was transferred to the floor on [**{date}**].",
    "Vital signs were stable at discharge.",
    "Medications were reconciled with the pharmacy.",
    "Nutrition saw {him} and made recommendations.",
    "FEN: regular diet, lytes repleted prn.",
    "Communication was with [**Name (NI) {num}**], wife/husband.",
    "Mood was good at discharge.",
    "Telemetry was reviewed each morning.",
    "Home medications were restarted in steps.",
    "Social work met with the family on [**{date}**].",
    "Plan was discussed with Dr. [**Last Name (STitle) {num}**].",
    "Outside records were obtained and reviewed.",
    "Sleep was disturbed and lights were dimmed at night.",
)
SOCIAL_PLAIN = (
    "{household}.",
    "{work}.",
    "Independent in ADLs.",
    "Originally from [**Country {num}**].",
    "No recent travel.",
    "Has a healthcare proxy.",
)
EXAM_PLAIN = (
    "VS: T {temp} HR {hr} BP {sbp}/{dbp} RR {rr}",
    "Gen: NAD",
    "HEENT: PERRL, EOMI, OP clear",
    "Neck: supple",
    "CV: S1 S2, no m/r/g appreciated",
    "Lungs: breath sounds symmetric",
    "Abd: soft, NT/ND, +BS",
    "Ext: warm",
    "Neuro: CN II-XII intact",
    "Skin: dry",
    "Psych: appropriate",
    "Back: straight, no CVA tenderness",
    "GENERAL: elderly {sex}, comfortable",
    "GU: deferred",
    "Lines: PIV x2",
)
RESULTS_PLAIN = (
    "ECG: normal axis, QTc {qtc}.",
    "Throat culture: normal flora, final.",
    "KUB: gas pattern normal.",
    "Film of the wrist: soft tissues normal.",
    "U/S: vessels patent.",
    "Specimen sent; report pending at discharge.",
    "Blood bank sample on file.",
    "Urine: amber, specific gravity 1.015.",
)
DISPOSITIONS = (
    "Home",
    "Home With Service",
    "Extended Care",
    "Extended Care\nFacility:\n[**Hospital{small}**]",
    "Rehab",
    "Home with VNA",
)
CONDITIONS = (
    "Stable",
    "Good",
    "Fair",
    "Mental Status: Clear and coherent.",
    "Ambulatory - Independent.",
    "Stable, improved.",
)
INSTRUCTIONS_PLAIN = (
    "You were admitted to the hospital and cared for by the team.",
    "Please take all medicines as listed.",
    "Call your doctor if you feel worse or have any questions.",
    "Weigh yourself every morning and call if it goes up by more than 3 lbs.",
    "Do not drive while taking pain medicine.",
    "Please keep all of your appointments.",
    "Return to the emergency room for any new or worrying symptom.",
    "You may shower, but do not soak in a bath.",
    "Drink plenty of water and eat small meals.",
    "It was a pleasure taking part in your care.",
    "Your medicines were changed; see the list that you were given.",
    "Please have your blood drawn at your next visit.",
    "Walk several times a day and rest in between.",
    "Do not lift more than 10 pounds for {small} weeks.",
    "Bring this sheet to your next visit.",
)
FOLLOWUP_PLAIN = (
    "Dr. [**Last Name (STitle) {num}**], [**Telephone/Fax (1) {num}**], in {small} weeks.",
    "Provider: [**First Name8 (NamePattern2) **] [**Last Name (NamePattern1) {num}**], MD Phone:[**Telephone/Fax (1) {num}**].",
    "PCP within {small} weeks of discharge.",
    "[**Hospital{small}**] clinic, please call for a time.",
)
ADDENDUM_OPENINGS = (
    "This addendum completes the summary of [**{date}**].",
    "The following was left out of the discharge summary.",
    "Correction to the hospital course.",
    "Addendum for completeness.",
)
NURSING_PLAIN = (
    "NPN 7p-7a: slept in short naps.",
    "Turned and repositioned q2h.",
    "Wife/husband called and was updated.",
    "Plan: continue present management, emotional support.",
    "Voiding clear yellow urine.",
    "Lungs with good air entry to both bases.",
    "Taking sips without trouble.",
    "See carevue for details.",
    "Skin intact at last look.",
)
RADIOLOGY_PLAIN = (
    "FINAL REPORT",
    "INDICATION: {age} year old {sex}, routine film.",
    "COMPARISON: none available.",
    "FINDINGS: heart size and mediastinal contours are normal for age.",
    "The bones are unremarkable.",
    "IMPRESSION: normal study.",
)

# Plain sentences without end, for long notes, and what may stand for their braces.
PROGRESS = (
    "On [**{date}**] {consult} saw {him} and {advice}.",
    "{consult} {advice}, and this was done on [**{date}**].",
    "By hospital day {hospital_day} {he} was {doing} and {doing}.",
    "Overnight into [**{date}**] {he} was {doing}; vital signs were T {temp}, HR {hr}, BP {sbp}/{dbp}.",
    "The {team} team {decided} on [**{date}**] after speaking with {consult}.",
    "{decided_first} by the {team} team on [**{date}**], {he} was {doing} the next morning.",
    "A family meeting with {consult} was held on [**{date}**], and the {team} team {decided}.",
    "{He} was {doing} when seen by Dr. [**Last Name (STitle) {num}**] on [**{date}**].",
    "Intake was {sbp}0 cc and output {sbp}5 cc on [**{date}**], and the {team} team {decided}.",
    "Between [**{date}**] and discharge {he} was {doing}, and {consult} {advice}.",
)
CHOICES: dict[str, tuple[str, ...]] = {
    "household": (
        "Lives alone, has a VNA",
        "Widowed, lives with a daughter",
        "Married with {small} children",
        "Divorced, lives with [**Name (NI) {num}**] in [**Location (un) {num}**]",
        "Lives in assisted living in [**Location (un) {num}**]",
    ),
    "work": (
        "Retired teacher",
        "Worked as a machinist",
        "Drove a bus until retirement",
        "Former nurse",
        "Runs a small shop",
        "Retired from the post office",
    ),
    "consult": (
        "nutrition",
        "physical therapy",
        "occupational therapy",
        "social work",
        "the chaplain",
        "the pharmacist",
        "case management",
        "the pain service",
        "speech therapy",
        "the wound nurse",
        "the night resident",
    ),
    "advice": (
        "advised small changes",
        "agreed with the plan",
        "suggested daily walks",
        "recommended rehab",
        "asked to be called again",
        "left detailed notes",
        "reviewed all orders",
        "had nothing to add",
        "wrote new goals of the week",
        "set up services at home",
    ),
    "doing": (
        "resting comfortably",
        "walking with help",
        "sitting in a chair",
        "eating half of each meal",
        "sleeping well",
        "asking to go home",
        "working with the therapists",
        "talking with visitors",
        "up with one assist",
        "watching television",
        "more awake",
        "in better spirits",
    ),
    "team": ("primary", "night float", "medical", "covering", "day", "consulting", "intensive care"),
    "decided": (
        "changed nothing",
        "advanced the diet",
        "adjusted the bowel regimen",
        "moved {him} to a quieter room",
        "asked for outside records",
        "wrote for rehab screening",
        "simplified the schedule of pills",
        "spoke with the PCP",
        "planned for discharge",
    ),
    "decided_first": ("Seen", "Examined", "Reviewed", "Visited", "Discussed"),
}

# Shorthand that hurried notes use outside of headings: (word, shorthand).
SHORTHAND = (
    ("without", "w/o"),
    ("with", "w/"),
    ("patient", "pt"),
    ("history of", "h/o"),
    ("discharge", "d/c"),
    ("treated", "tx'd"),
    ("follow", "f/u"),
    ("and", "&"),
    ("negative", "neg"),
    ("positive", "pos"),
)

# Section headings; the first of each is the commonest.
HEADINGS: dict[str, tuple[str, ...]] = {
    "allergies": ("Allergies:", "Allergies:", "ALLERGIES:", "Drug allergies:"),
    "complaint": ("Chief Complaint:", "Chief Complaint:", "CC:", "CHIEF COMPLAINT:"),
    "procedures": ("Major Surgical or Invasive Procedure:", "Major Surgical or Invasive Procedure:", "PROCEDURES:"),
    "hpi": ("History of Present Illness:", "History of Present Illness:", "HISTORY OF PRESENT ILLNESS:", "HPI:"),
    "history": ("Past Medical History:", "Past Medical History:", "PAST MEDICAL HISTORY:", "PMH:", "PMHx:"),
    "social": ("Social History:", "Social History:", "SOCIAL HISTORY:", "SH:"),
    "family": ("Family History:", "Family History:", "FAMILY HISTORY:", "FH:"),
    "exam": ("Physical Exam:", "PHYSICAL EXAMINATION:", "PE:", "Exam on admission:"),
    "results": ("Pertinent Results:", "Pertinent Results:", "LABS:", "Labs and studies:"),
    "course": ("Brief Hospital Course:", "Brief Hospital Course:", "HOSPITAL COURSE:", "Hospital Course:"),
    "home drugs": (
        "Medications on Admission:",
        "Medications on Admission:",
        "HOME MEDS:",
        "MEDICATIONS ON ADMISSION:",
    ),
    "discharge drugs": ("Discharge Medications:", "Discharge Medications:", "DISCHARGE MEDICATIONS:", "Meds on d/c:"),
    "disposition": ("Discharge Disposition:", "DISPOSITION:"),
    "diagnoses": ("Discharge Diagnosis:", "Discharge Diagnosis:", "DISCHARGE DIAGNOSES:", "Final Diagnoses:"),
    "condition": ("Discharge Condition:", "CONDITION AT DISCHARGE:"),
    "instructions": ("Discharge Instructions:", "DISCHARGE INSTRUCTIONS:"),
    "followup": ("Followup Instructions:", "FOLLOW-UP:", "Followup Instructions:"),
}
ORDERS: tuple[tuple[str, ...], ...] = (
    (
        "allergies",
        "complaint",
        "procedures",
        "hpi",
        "history",
        "social",
        "family",
        "exam",
        "results",
        "course",
        "home drugs",
        "discharge drugs",
        "disposition",
        "diagnoses",
        "condition",
        "instructions",
        "followup",
    ),
    (
        "allergies",
        "complaint",
        "procedures",
        "hpi",
        "history",
        "home drugs",
        "social",
        "family",
        "exam",
        "results",
        "course",
        "discharge drugs",
        "disposition",
        "diagnoses",
        "condition",
        "instructions",
        "followup",
    ),
    (
        "complaint",
        "hpi",
        "history",
        "home drugs",
        "allergies",
        "family",
        "social",
        "exam",
        "results",
        "procedures",
        "course",
        "diagnoses",
        "condition",
        "disposition",
        "discharge drugs",
        "instructions",
        "followup",
    ),
    (
        "diagnoses",
        "procedures",
        "allergies",
        "hpi",
        "history",
        "family",
        "social",
        "home drugs",
        "exam",
        "results",
        "course",
        "disposition",
        "condition",
        "discharge drugs",
        "followup",
        "instructions",
    ),
)
