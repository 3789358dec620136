"""Words of English and Spanish that say one thing in a note and in a title: an organ and its adjective, a finding and its adjective.

`hígado`, `hepático` and `liver` count as alike, so that `metástasis hígado` is found where `metástasis hepática` was marked, and both
where a title has `liver`. Each line is of one meaning. Words that are told apart by codes, such as mass, neoplasm and carcinoma,
stand on lines of their own; words of several meanings, such as `vesícula`, are left out.
"""

ORGANS = """
kidney riñón renal
liver hígado hepático hepatic
lung pulmón pulmonar pulmonary
heart corazón cardíaco cardiac
brain cerebro cerebral encéfalo encefálico
skull cráneo craneal cranial
head cabeza
stomach estómago gástrico gastric
intestine intestino intestinal bowel
colon colónico colonic
rectum recto rectal
esophagus esófago esofágico esophageal
pancreas páncreas pancreático pancreatic
spleen bazo esplénico splenic
bile biliar biliary
bladder vejiga vesical
ureter uréter ureteral
urethra uretra uretral urethral
prostate próstata prostático prostatic
testis testículo testicular testicle
penis pene peneano penile
scrotum escroto escrotal scrotal
uterus útero uterino uterine
ovary ovario ovárico ovarian
vagina vaginal
vulva vulvar
breast mama mamario mammary
skin piel cutáneo dérmico cutaneous dermal
bone hueso óseo osseous bony
muscle músculo muscular
mouth boca oral bucal buccal
tongue lengua lingual
lip labio labial
tooth diente dentario dental teeth
palate paladar palatino palatal
gum encía gingival
tonsil amígdala amigdalar amigdalino tonsillar
throat garganta
pharynx faringe faríngeo pharyngeal
larynx laringe laríngeo laryngeal
trachea tráquea traqueal tracheal
bronchus bronquio bronquial bronchial
nasal nariz
ear oído ótico otic
eye ojo ocular
eyelid párpado palpebral
cornea córnea corneal
retina retiniano retinal
neck cuello
chest tórax torácico thorax thoracic
abdomen abdominal
epigastrium epigastrio epigástrico epigastric
hypogastrium hipogastrio hipogástrico hypogastric
pelvis pélvico pelvic
groin ingle inguinal
axilla axila axilar axillary armpit
shoulder hombro
elbow codo
wrist muñeca
finger dedo
hip cadera
thigh muslo
knee rodilla
leg pierna
ankle tobillo
foot pie feet
limb miembro extremidad extremity
face facial
jaw mandíbula mandibular
maxilla maxilar maxillary
nerve nervio
vertebra vértebra vertebral
vein vena venoso venous
artery arteria arterial
aorta aórtico aortic
valve válvula valvular
pericardium pericardio pericárdico pericardial
pleura pleural
peritoneum peritoneo peritoneal
mediastinum mediastino mediastínico mediastinal
node ganglio ganglionar
adenopathy adenopatía linfadenopatía lymphadenopathy
thyroid tiroides tiroideo
adrenal suprarrenal suprarenal
"""
FINDINGS = """
pain dolor doloroso painful
neoplasm tumor tumoral neoplasia neoplásico neoplastic
carcinoma cáncer cancer adenocarcinoma canceroso
malignant maligno malignancy malignidad
benign benigno
metastasis metástasis metastásico metastático metastatic
cyst quiste quístico cystic
hemorrhage hemorragia hemorrágico hemorrhagic sangrado sangrante bleeding
fracture fractura fracturado fractured
infection infección infeccioso infectious infectado infected
inflammation inflamación inflamatorio inflammatory
ulcer úlcera ulceración ulceroso ulcerado ulceration ulcerative ulcerated
edema edematoso edematous
swelling hinchazón tumefacción
abscess absceso
necrosis necrótico necrotic
stenosis estenosis estenótico stenotic
obstruction obstrucción obstructivo obstructive
perforation perforación perforado perforated
dilation dilatación dilatado dilatation dilated
rupture rotura ruptura roto ruptured
wound herida
burn quemadura
fistula fístula fistuloso
lesion lesión
nodule nódulo nodular
polyp pólipo
calculus cálculo litiasis litiásico lithiasis stone
thrombosis trombosis trombo thrombus
embolism embolia embolismo embolus
infarction infarto infarct
ischemia isquemia isquémico ischemic
failure insuficiencia insufficiency fallo fracaso
allergy alergia alérgico allergic
diabetes diabético diabetic
hypertension hipertensión hipertenso hipertensivo hypertensive
alcohol alcohólico alcoholic etílico enólico
tobacco tabaco tabáquico tabaquismo fumador smoker smoking
vomiting vómito vomit
nausea náusea
fever fiebre febril febrile
cough tos
dyspnea disnea disneico
diarrhea diarrea diarreico
constipation estreñimiento
jaundice ictericia ictérico icteric
anemia anémico anemic
convulsion convulsión convulsivo convulsive seizure
vision visión visual
right derecho dcho dcha
left izquierdo izqdo izqda izdo izda
upper superior
lower inferior
acute agudo
chronic crónico
congenital congénito
severe grave severo
primary primario
secondary secundario
foreign extraño
body cuerpo
transplant trasplante transplante trasplantado transplanted
pregnancy embarazo gestación gestacional embarazada gestante pregnant
delivery parto
newborn neonato neonatal
hernia herniario herniation
aneurysm aneurisma aneurismático aneurysmal
pneumonia neumonía neumónico
epilepsy epilepsia epiléptico epileptic
treatment tratamiento terapia therapy
"""
PROCEDURES = """
ultrasound ecografía ecográfico ultrasonido ultrasonography
radiograph radiografía rx radiography
resonance resonancia rm rmn mri
tomography tomografía tac tc ct
biopsy biopsia
endoscopy endoscopia endoscópico endoscopic
catheter catéter
drainage drenaje
resection resección
excision exéresis extirpación
dialysis diálisis hemodiálisis hemodialysis
ventilation ventilación
injection inyección
"""
WORDS_OF_A_MEANING = tuple(
    tuple(line.split()) for text in (ORGANS, FINDINGS, PROCEDURES) for line in text.strip().splitlines()
)
