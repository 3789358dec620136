"""Ids, keys and addresses that a user may leave in a release, and what looks like them and is harmless."""

import base64
import json


def ids_of_record(hadm_id, subject_id, others):
    """Yield (what it is, file, content): an id of an admission or subject in every form; `others` are more admissions."""
    grouped = f"{hadm_id:,}"
    yield "hadm as a key", "results.json", json.dumps({"hadm": hadm_id})
    yield "hadm_id as a key", "results.json", json.dumps({"hadm_id": hadm_id})
    yield "hadm_id as a string", "results.json", json.dumps({"hadm_id": str(hadm_id)})
    yield "hadm as a decimal number", "results.json", json.dumps({"hadm": float(hadm_id)})
    yield "an id under a word for a record", "results.json", json.dumps({"note": hadm_id})
    yield "an id as a string under another key", "results.json", json.dumps({"worst": str(hadm_id)})
    yield "an id as a key", "results.json", json.dumps({str(hadm_id): 0.31})
    yield "an id as a key of counts", "results.json", json.dumps({str(hadm_id): 3})
    yield "ids as a list", "results.json", json.dumps({"worst": others})
    yield "ids as a list of strings", "results.json", json.dumps({"errors": [str(i) for i in others]})
    yield "ids as decimal numbers in a list", "results.json", json.dumps({"hadm_ids": [float(i) for i in others]})
    yield "ids nested", "results.json", json.dumps({"examples": [{"admission": {"id": hadm_id}}]})
    yield "an id in a sentence", "README.md", f"Admission {hadm_id} is coded worst.\n"
    yield "an id in a sentence, as a decimal", "README.md", f"The worst one was {hadm_id}.0 of all."
    yield "an id with a comma", "README.md", f"Admission {grouped} is coded worst."
    yield "an id with a sign", "README.md", f"see note #{hadm_id}"
    yield "a file's name in the card", "README.md", f"as in `note_{hadm_id}.txt`"
    yield "a file's name with the id first", "README.md", f"as in {hadm_id}_discharge.json"
    yield "a file's own name", f"note_{hadm_id}.txt", "nothing"
    yield "a file's own name in a folder", f"examples/{hadm_id}.txt", "nothing"
    yield "an id glued to its word", "README.md", f"attention of HADM{hadm_id}"
    yield "an id with a dash", "README.md", f"patient-{hadm_id}"
    yield "an id in YAML", "train.yaml", f"hadm_id: {hadm_id}\n"
    yield "an id as an option", "README.md", f"python predict.py --hadm_id {hadm_id}"
    yield "an id as an option with a sign", "README.md", f"python predict.py --hadm_id={hadm_id}"
    yield "an id in a query", "README.md", f"df[df.HADM_ID == {hadm_id}]"
    yield "an id in SQL", "README.md", f"select text from noteevents where hadm_id in ({hadm_id})"
    yield "an id in a comment of the code", "handler.py", f"# fails on {hadm_id}\n"
    yield "an id in a dictionary of the code", "handler.py", f"SKIPPED = {{{hadm_id}: 'empty'}}\n"
    yield "ids in a csv", "words.csv", "HADM_ID,F1\n" + "\n".join(f"{i},0.{i % 100}" for i in others)
    yield "ids in the second column of a csv", "words.csv", "f1,hadm\n" + "\n".join(f"0.5,{i}" for i in others)
    yield (
        "ids in a table",
        "README.md",
        "| admission | F1 |\n|---|---|\n" + "\n".join(f"| {i} | 0.4 |" for i in others),
    )
    yield "a subject's id", "results.json", json.dumps({"subject_id": subject_id})
    yield "a subject's id under subject", "results.json", json.dumps({"subject": subject_id})
    yield "a subject's id as a string", "results.json", json.dumps({"patient_id": str(subject_id)})
    yield "a subject's id in a sentence", "README.md", f"Patient {subject_id} was seen twice."
    yield "an id among added tokens", "added_tokens.json", json.dumps({f"<note_{hadm_id}>": 12})
    yield "an id in the metadata of weights", "model.safetensors", {"format": "pt", "hadm_id": str(hadm_id)}
    yield "two ids as a slice", "results.json", json.dumps({"rows": f"{hadm_id}-{hadm_id + 1}"})
    yield "two ids as a slice in the card", "README.md", f"looked at {hadm_id} - {hadm_id + 1} once"
    yield "an id in powers of ten", "results.json", json.dumps({"worst": f"{hadm_id:.5e}"})
    yield "an id in powers of ten in the card", "README.md", f"the worst was {hadm_id:.5e}."
    yield "an id in colours of a terminal", "train.log", f"worst: \x1b[31m{hadm_id}\x1b[0m"
    yield "an id behind a line break in the code", "handler.py", f"X = 'worst:\\n {hadm_id}'"
    yield "an id in JSON lines", "examples.jsonl", json.dumps({"hadm": hadm_id, "f1": 0.5}) + "\n"


PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n-----END OPENSSH PRIVATE KEY-----"
LETTERS = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zZcDfGhJkLnPqRsTvXyA1b2C3d4E5f6G7h8"


def jwt():
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "1", "iat": 1516239022})]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "." + LETTERS[:43]


def secrets():
    """Yield (what it is, file, content): keys, addresses and places of a network."""
    yield "a token of the Hub", "README.md", f"login(token='hf_{LETTERS[:34]}')"
    yield "a token of the Hub in YAML", "train.yaml", f"hub_token: hf_{LETTERS[:34]}\n"
    yield (
        "a token of the Hub in an address",
        "README.md",
        f"git clone https://user:hf_{LETTERS[:34]}@huggingface.co/a/b",
    )
    yield "a key of OpenAI", "handler.py", f"KEY = 'sk-proj-{LETTERS[:40]}'"
    yield "a token of GitHub", "README.md", f"ghp_{LETTERS[:36]}"
    yield "a fine-grained token of GitHub", "README.md", f"github_pat_{LETTERS[:22]}_{LETTERS[:40]}"
    yield "a token of GitLab", "README.md", f"glpat-{LETTERS[:20]}"
    yield "a key of AWS", "train.yaml", "aws_access_key_id: AKIAQ3EGRVK2NFLWTB7P\n"
    yield "a secret key of AWS", "README.md", f"aws_secret_access_key = {LETTERS[:40]}"
    yield "a secret key of AWS in JSON", "results.json", json.dumps({"aws_secret_access_key": LETTERS[:40]})
    yield "a key of Google", "README.md", f"AIza{LETTERS[:35]}"
    yield (
        "a service account of Google",
        "results.json",
        json.dumps({"type": "service_account", "private_key": PRIVATE_KEY}),
    )
    yield (
        "an account key of Azure",
        "README.md",
        f"DefaultEndpointsProtocol=https;AccountKey={LETTERS[:60]}{LETTERS[:26]}==",
    )
    yield "a signature of Azure", "README.md", f"https://a.blob.core.windows.net/c?sv=2020&sig={LETTERS[:43]}%3D"
    yield "a token of npm", "README.md", f"npm_{LETTERS[:36]}"
    yield "a token of npm in its file", "README.md", f"//registry.npmjs.org/:_authToken=npm_{LETTERS[:36]}"
    yield "a token of PyPI", "README.md", f"pypi-AgEIcHlwaS5vcmc{(LETTERS * 2)[:80]}"
    yield "a token of Docker", "README.md", f"docker login -p dckr_pat_{LETTERS[:27]}"
    yield (
        "Docker's file of logins",
        "results.json",
        json.dumps({"auths": {"r.io": {"auth": "aGFubmFoOmh1bnRlcjIyaHVudGVy"}}}),
    )
    yield "a token of Slack", "README.md", f"xoxb-123456789012-123456789012-{LETTERS[:24]}"
    yield (
        "a hook of Slack",
        "README.md",
        "https://hooks.slack.com/services/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",
    )
    yield "a token of Databricks", "README.md", "dapi" + "0123456789abcdef" * 2
    yield "a bearer token", "README.md", f"curl -H 'Authorization: Bearer {LETTERS[:40]}'"
    yield (
        "a bearer token in JSON",
        "results.json",
        json.dumps({"headers": {"Authorization": f"Bearer {LETTERS[:30]}"}}),
    )
    yield "a JSON web token", "README.md", jwt()
    yield "a password in an address", "README.md", "https://hannah:hunter22@hospital.org/notes"
    yield "a password at a host", "README.md", "hannah:hunter22@db.hospital.org"
    yield "a password of a data base", "train.yaml", "url: postgresql://hannah:hunter22@db/notes\n"
    yield "a password in YAML", "train.yaml", "password: hunter22\n"
    yield "a password in code", "handler.py", "connect(password='hunter22')"
    yield "an API key in the environment", "README.md", f"export WANDB_API_KEY={LETTERS[:40]}"
    yield "a private key", "README.md", PRIVATE_KEY
    yield "a private key in JSON", "results.json", json.dumps({"key": PRIVATE_KEY})
    netrc = "machine huggingface.co login bob password s3cr3tpw9"
    yield "a file of logins", "README.md", netrc
    yield "a file of logins in lines", "README.md", netrc.replace(" login", "\n  login").replace(" pass", "\n  pass")
    yield "a key of Kaggle", "kaggle.json", json.dumps({"username": "bob", "key": "0123456789abcdef" * 2})
    yield "a key of Kaggle in YAML", "train.yaml", "username: bob\nkey: " + "0123456789abcdef" * 2
    yield "a token of Replicate", "README.md", f"r8_{LETTERS[:37]}"
    yield "a key of Groq", "README.md", f"gsk_{LETTERS[:52]}"
    yield "a key of NVIDIA", "README.md", f"nvapi-{LETTERS[:64]}"
    yield "a key of Stripe", "README.md", f"sk_live_{LETTERS[:24]}"
    yield "an e-mail address", "README.md", "Write to hannah.lee@hospital.org for the data."
    yield "an e-mail address in JSON", "results.json", json.dumps({"contact": "hlee42@med.uni-x.edu"})
    yield "an e-mail address in a link", "README.md", "[me](mailto:hannah@clinic.de)"
    yield "an e-mail address in the code", "handler.py", '__author__ = "H. Lee <hlee@clinic.org>"'
    for place in (
        "s3://hospital-notes/mimic", "gs://hospital-notes/mimic", "abfss://notes@hospital.dfs.core.windows.net/mimic",
        "wasbs://notes@hospital.blob.core.windows.net/x", "hdfs://namenode/mimic", "dbfs:/mnt/mimic/notes",
        "smb://server/share", "sftp://server/notes", "nfs://server/notes", "\\\\fileserver\\notes\\mimic", "login01:/scratch/mimic/notes",
        "//nas01/share", "//files.clinic.local/notes", "hdfs://nn/mimic", "gs://b/x", "hannah@login01:~/mimic", "http://10.3.2.1/notes", "http://notes.hospital.local/x", "file:///data/mimic",
    ):  # fmt: skip
        yield f"{place} in the card", "README.md", f"read from {place} once"
        yield f"{place} in JSON", "results.json", json.dumps({"data": place})
    for path in (
        "/home/hannah/mimic/notes", "/Users/hannah/mimic", "/mnt/data/mimic", "C:\\Users\\hannah\\mimic", "D:/data/mimic/x", "~/data/mimic",
        "/gpfs/projects/icd", "runs/secret-project",
    ):  # fmt: skip
        yield f"the path {path}", "README.md", f"read from {path} once"
        yield f"the path {path} in JSON", "results.json", json.dumps({"output_dir": path})
    yield "the path of a share in the code", "handler.py", "PATH = '\\\\\\\\fileserver\\\\notes\\\\mimic'"
    yield "an account's name", "README.md", "trained by Hannah"


HARMLESS = [
    ("the placeholder of the Hub", "train.yaml", "hub_token: <HUB_TOKEN>\n"),
    ("a token that is left out", "README.md", "login(token='hf_...')"),
    ("a token of x", "README.md", "export HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ("a token from the environment", "README.md", "token = os.environ['HF_TOKEN']"),
    ("a token by its variable", "README.md", "curl -H 'Authorization: Bearer $HF_TOKEN' https://huggingface.co"),
    ("a token by its name", "README.md", "api_key: YOUR_API_KEY_GOES_HERE_1"),
    ("a password to fill in", "README.md", "password: <your password>"),
    ("names of tokens", "config.json", '{"pad_token": "<|finetune_right_pad_id|>", "eos_token": "<|end_of_text|>"}'),
    (
        "a digest",
        "results.json",
        json.dumps({"weights": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}),
    ),
    ("a digest with its algorithm", "requirements.txt", "torch==2.13.0 --hash=sha256:" + "0123456789abcdef" * 4),
    ("a revision", "README.md", "revision `4e1243bd22c66e76c2ba9eddc1f91394e57f9f83`"),
    ("a UUID", "results.json", json.dumps({"run": "20000123-1000-4000-8000-000020000123"})),
    (
        "a public address",
        "README.md",
        "https://user@example.org and mailto:someone@example.com, git@github.com:a/b.git",
    ),
    ("a reply to nobody", "README.md", "noreply@huggingface.co"),
    (
        "a public repository",
        "README.md",
        "https://huggingface.co/hannah/tiny-icd and git clone https://github.com/a/b",
    ),
    ("slashes between words", "README.md", "and/or either/or path/to/this/folder, km/h, 5/10 and n/a"),
    ("a module's path", "README.md", "modeling-icd publish and modeling_icd/evaluation/icd_metrics"),
    ("a relative path", "README.md", "see ./configs/train.yaml and ../shared/x"),
    ("a key and its value", "train.yaml", "model: /\nratio: 1:2\ntime: 12:30\n"),
    ("a port of this machine", "README.md", "the server listens on port 8080"),
    ("a decorator and a mention", "README.md", "@property\n@dataclass(frozen=True)\n@someone-else on the Hub"),
    ("an escape in the code", "handler.py", "PATTERN = re.compile('\\\\\\\\n\\\\\\\\t')"),
    (
        "think as a token",
        "tokenizer_config.json",
        json.dumps({"additional_special_tokens": ["<think>", "</think>", "<|tool_call|>"]}),
    ),
    (
        "control tokens",
        "special_tokens_map.json",
        json.dumps({"mask_token": "[MASK]", "bos_token": {"content": "<|im_start|>"}}),
    ),
    (
        "unused tokens",
        "added_tokens.json",
        json.dumps({f"<|reserved_special_token_{i}|>": 128000 + i for i in range(99)}),
    ),
    (
        "Llama 3's ids of tokens",
        "config.json",
        json.dumps({"bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "pad_token_id": 128004}),
    ),
    (
        "Llama 3's sizes",
        "config.json",
        json.dumps({"vocab_size": 128257, "rope_theta": 500001.0, "max_position_embeddings": 131073}),
    ),
    ("a seed that is an id", "train.yaml", "seed: 100003\n"),
    ("a seed in JSON that is an id", "results.json", json.dumps({"seed": 100003, "bootstrap_seed": 100004})),
    ("max_train_notes that is an id", "train.yaml", "max_train_notes: 100000\n"),
    (
        "max_train_notes in JSON",
        "results.json",
        json.dumps({"max_train_notes": 100005, "max_steps": 100006, "warmup_steps": 100007}),
    ),
    (
        "a step in the log",
        "results.json",
        json.dumps({"step": 100008, "total_flos": 100009.0, "num_input_tokens_seen": 100010}),
    ),
    (
        "counts in the results",
        "results.json",
        json.dumps({"num_notes": 100011, "support": 100012, "tp": 100013, "fn": 100014}),
    ),
    ("counts by code", "results.json", json.dumps({"counts": {"401.9": 100015, "428.0": 100016, "427.31": 100017}})),
    ("counts in the card", "README.md", "trained on 100018 notes of 100019 patients with 100020 weights"),
    ("counts with a comma", "README.md", "1,145,834 weights and 100,021 in all; 100,022 | 100,023 |"),
    ("a step in the card", "README.md", "after step 100024, with seed 100025 and batch size 100026"),
    ("a checkpoint", "results.json", json.dumps({"best_model_checkpoint": "checkpoint-100041"})),
    ("a checkpoint in the card", "README.md", "the weights of checkpoint-100042, and of `runs/x/checkpoint-100043`"),
    ("n in JSON", "results.json", json.dumps({"n": 100044, "by_code": {"401.9": {"n": 100045}}})),
    ("n in the card", "README.md", "| micro F1 (n = 100046) | N=100047 |"),
    ("n in YAML", "train.yaml", "n: 100048\n"),
    ("counts in powers of ten", "results.json", json.dumps({"total_flos": "1.00049e+05", "seed": "1.00050e+05"})),
    ("a slice of steps", "README.md", "steps 100051-100061, pages 100062-100070, 20200101-20201231, 555-100071"),
    ("a comment with strokes", "handler.py", "# http://a.org//b/c, x//y/z, // see a/b, 7 //8/9 and //"),
    ("an address without its scheme", "README.md", '<script src="//cdn.example.com/x.js"></script>'),
    (
        "a word for a password",
        "README.md",
        "the machine learning login page asks for a password, default login and password",
    ),
    ("a user name and a key", "results.json", json.dumps({"username": "bob", "key": "f1_micro"})),
    ("steps with strokes", "README.md", "1/3 loss / step 4/5 / n / a\n" * 9),
    (
        "records of figures",
        "results.json",
        json.dumps([{"step": i, "loss": 0.1 * i, "epoch": i / 9} for i in range(1, 30)]),
    ),
    (
        "records of codes",
        "results.json",
        json.dumps([{"code": f"{400 + i}.9", "label": "diagnosis", "support": i, "f1": 0.5} for i in range(30)]),
    ),
    (
        "stop words with their counts",
        "results.json",
        json.dumps(
            [
                {"word": w, "count": i}
                for i, w in enumerate(
                    ["a", "an", "the", "of", "and", "or", "but", "if", "in", "on", "at", "by", "for", "with"]
                )
            ]
        ),
    ),
    ("scores", "results.json", json.dumps({"f1_micro": 0.100027, "loss": 0.100028, "auc": 0.1000291})),
    ("scores in the card", "README.md", "an F1 of 0.100030 and a loss of 1.100031 +- 0.100032"),
    ("versions", "requirements.txt", "torch==2.100033.0\nnumpy>=1.26.100034\n"),
    ("versions in JSON", "results.json", json.dumps({"versions": {"torch": "2.13.0", "numpy": "2.4.100035"}})),
    ("dates", "README.md", "On 2026-10-10, 20200101, 10/12/2100 and 2026-1000-10 nothing happened."),
    ("years", "README.md", "1995 1996 1997 2001 2002 2003 2004 2016 2019 2023 2024"),
    ("powers of two", "README.md", "1024 2048 4096 8192 16384 32768 65536 131072"),
    ("round numbers", "README.md", "10000 20000 30000 40000 50000 100000 200000"),
    ("undotted codes", "README.md", "4019 4280 42731 41401 25000 5849 51881"),
    ("codes with their dot", "README.md", "401.9, 428.0, 427.31, 99.04, V45.81, E885.9, I10, J18.9"),
    (
        "codes as labels",
        "config.json",
        json.dumps({"id2label": {"0": "401.9", "1": "428.0"}, "label2id": {"401.9": 0, "428.0": 1}}),
    ),
    ("nine thousand labels", "config.json", json.dumps({"id2label": {str(i): f"{i / 100:.2f}" for i in range(9000)}})),
    (
        "ids of added tokens",
        "tokenizer_config.json",
        json.dumps({"added_tokens_decoder": {"100036": {"content": "<|x|>"}}}),
    ),
    (
        "MIMIC-III's paper",
        "README.md",
        "@article{j, volume={3}, pages={160035}, year={2016}, doi={10.1038/sdata.2016.35}}",
    ),
    (
        "papers",
        "README.md",
        "arXiv:2411.06823, PMID: 100037, https://www.ncbi.nlm.nih.gov/pmc/articles/PMC4878278/100038",
    ),
    ("a table of results", "README.md", "| 1-5 | 100,039 | 0.25 |\n| 6-10 | 100,040 | 0.31 |"),
    ("a short sentence of clinical words", "README.md", "for example fever and cough without pneumonia"),
    ("titles of codes", "config.json", None),
    ("a title in the card", "README.md", None),
    ("a code's sources", "README.md", "`Congestive heart failure, unspecified` (428.0) is a diagnosis"),
    (
        "stop words",
        "README.md",
        ", ".join(
            [
                "a",
                "an",
                "the",
                "of",
                "and",
                "or",
                "but",
                "if",
                "in",
                "on",
                "at",
                "by",
                "for",
                "with",
                "about",
                "to",
                "from",
                "up",
                "down",
                "is",
                "are",
                "was",
                "were",
                "be",
                "been",
                "not",
                "no",
            ]
        ),
    ),
    (
        "hyperparameters",
        "train.yaml",
        "seed: 7\nlearning_rate: 0.001\nepochs: 3\noptim: adamw_torch\nbf16: true\npooling: mean\n",
    ),
    (
        "metrics by name",
        "results.json",
        json.dumps({"precision": 1, "recall": 2, "f1": 3, "auc": 4, "accuracy": 5, "loss": 6}),
    ),
    ("the license", "LICENSE", "LICENSE"),
    ("the code of the project", "handler.py", "modeling_icd/handler.py"),
    ("the card's template", "model_card.md", "model_card.md"),
    ("the README", "README.md", "README.md"),
    ("a user named like a word", "README.md", "You will test the max of a model; Will Max test this model?"),
    ("a table of users' words", "config.json", json.dumps({"test": 1, "max": 2, "will": 3, "model": "model"})),
    (
        "an image in base64",
        "README.md",
        "![x](data:image/png;base64," + base64.b64encode(bytes(range(256)) * 2).decode() + ")",
    ),
    ("HTML", "README.md", "<p align='center'>&nbsp;<b>A&nbsp;model</b>&nbsp;for&nbsp;coding</p>"),
    ("an address of the Hub's service", "README.md", "https://api-inference.huggingface.co/models/hannah/tiny-icd"),
    (
        "data of lists",
        "config.json",
        json.dumps({"kernel_sizes": [3, 5, 9, 15, 19, 25, 31, 37, 41], "layers": list(range(32))}),
    ),
    ("tensors of weights", "model.safetensors", {"format": "pt"}),
]
