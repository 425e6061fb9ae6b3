"""Labels that come after their predictions: pip install requests

Asks whether 400 loans will be repaid, then tells the gateway what became of each, in the order in which that came
to be known, and prints what the gateway made of the labels:

    400 loans asked
    400 labels sent: 400 joined
    car-loan version 1 by 400 labels: accuracy 0.92, ROC AUC 0.95
"""

import collections
import csv
import random
import sys
import time

import requests

server = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
admin = sys.argv[2] if len(sys.argv) > 2 else "http://localhost:8002"
model = f"{server}/v2/models/car-loan"
numbers = {"car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"}
session = requests.Session()

outcomes = []  # what one will know of each loan, by the request's id
with open("models/car-loan/samples.csv") as file:
    for n, row in enumerate(csv.DictReader(file)):
        repaid = int(row.pop("repaid"))
        loan = {key: float(value) if key in numbers else value for key, value in row.items()}
        answer = session.post(f"{model}/predict", json=loan, headers={"x-request-id": f"loan-{n}"})
        answer.raise_for_status()
        outcomes.append({"id": f"loan-{n}", "label": repaid})
print(f"{len(outcomes)} loans asked")

random.Random(1).shuffle(outcomes)  # some are repaid sooner than others
became = collections.Counter()
for start in range(0, len(outcomes), 50):
    records = outcomes[start : start + 50]
    became.update(session.post(f"{model}/feedback", json={"records": records}).json())
counts = ", ".join(f"{count} {what}" for what, count in became.items() if count)
print(f"{len(outcomes)} labels sent: {counts}")

# The monitor's thread counts them within a moment.
for _ in range(50):
    verdict = session.get(f"{admin}/api/v1/drift/car-loan/1").json()["performance"]
    measured = next(window for window in verdict["realised"] if window["window"] == "all")
    if measured["rows"] == len(outcomes):
        break
    time.sleep(0.1)
print(
    f"car-loan version 1 by {measured['rows']} labels: "
    f"accuracy {measured['accuracy']:.2f}, ROC AUC {measured['roc_auc']:.2f}"
)
